//! The backend in memory and the others do the same, whatever is asked of them and whenever they are opened again.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Append { file: u8, bytes: Vec<u8> },
    Delete { file: u8 },
    Quarantine { file: u8 },
    Commit { changes: Vec<(u8, Option<u16>)> },
    Mark { byte: u8, synced: bool },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let file = 0..6_u8;
    prop_oneof![
        4 => (file.clone(), vec(any::<u8>(), 0..50)).prop_map(|(file, bytes)| Step::Append { file, bytes }),
        1 => file.clone().prop_map(|file| Step::Delete { file }),
        1 => file.prop_map(|file| Step::Quarantine { file }),
        4 => vec((0..20_u8, proptest::option::weighted(0.7, 0..40_000_u16)), 0..8)
            .prop_map(|changes| Step::Commit { changes }),
        1 => any::<(u8, bool)>().prop_map(|(byte, synced)| Step::Mark { byte, synced }),
        1 => Just(Step::Reopen),
    ]
}

/// What a step answered, as far as all must agree.
fn make(backend: &dyn Backend, step: &Step) -> bool {
    let name = |file: u8| FileId { kind: FileKind::ALL[usize::from(file % 3)], number: u64::from(file) };
    match step {
        Step::Append { file, bytes } => match backend.create(name(*file)) {
            Ok(mut appender) => {
                appender.append(&[bytes, bytes]).unwrap();
                appender.sync().unwrap();
                true
            }
            Err(_) => false,
        },
        Step::Delete { file } => backend.delete(name(*file)).is_ok(),
        Step::Quarantine { file } => backend.quarantine(name(*file)).is_ok(),
        Step::Commit { changes } => {
            let values: Vec<([u8; 1], Option<Vec<u8>>)> = changes
                .iter()
                .map(|(key, length)| ([*key], length.map(|length| vec![*key; usize::from(length)])))
                .collect();
            let changes: Vec<CatalogueChange<'_>> = values
                .iter()
                .map(|(key, value)| match value {
                    Some(value) => CatalogueChange::Put(key, value),
                    None => CatalogueChange::Remove(key),
                })
                .collect();
            backend.commit(&changes).is_ok()
        }
        Step::Mark { byte, synced } => backend.write_mark(&[*byte; MARK_BYTES], *synced).is_ok(),
        Step::Reopen => true,
    }
}

fn agrees_with_memory<S: Subject>(steps: &[Step]) {
    let mut memory = MemoryBackend::within(scratch());
    let mut other = S::within(scratch());
    for step in steps {
        assert_eq!(make(&memory, step), make(other.backend(), step), "{step:?}");
        if matches!(step, Step::Reopen) {
            memory = memory.reopened();
            other = other.reopened();
        }
        let files = memory.files().unwrap();
        assert_eq!(files, other.backend().files().unwrap());
        for (file, _) in files {
            assert_eq!(read(&memory, file), read(other.backend(), file));
        }
        assert_eq!(memory.read_mark().unwrap(), other.backend().read_mark().unwrap());
        assert_eq!(catalogue(&memory).unwrap(), catalogue(other.backend()).unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn files_agrees_with_memory(steps in vec(step(), 1..60)) {
        agrees_with_memory::<Files>(&steps);
    }

    #[test]
    fn sled_agrees_with_memory(steps in vec(step(), 1..60)) {
        agrees_with_memory::<Sled>(&steps);
    }
}
