//! A directory has one catalogue that counts. A backend that opens a directory with another backend's catalogue takes
//! it over: everything in it is committed to a catalogue of the new backend's own, and then the other is removed.
//!
//! ```text
//! taking-over-sled   a sign: sled's catalogue counts, and the one beside it is being made of it
//! giving-up          a sign: both catalogues are being set aside
//! sled.gone …        what is being removed
//! ```
//!
//! | sign | there | what is done |
//! |---|---|---|
//! | none | one catalogue | it is opened, or taken over |
//! | `taking-over-X` | X's | the other one was not finished: it is removed, and all begins again |
//! | `taking-over-X` | the other's | it was: the sign is removed |
//! | none, or `giving-up` | both | nobody knows which of them was used last: both are set aside |
//!
//! Only builds before this one can leave the last case behind: they let a catalogue lie when another backend was used.
//! Believing the older of the two would lose what only the newer one knows of; so the backend finds the directory
//! without a catalogue and makes one from the files, as where the catalogue is damaged.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::on_files::Catalogue;
use super::payload::{Payload, sync_directory};
use super::{BackendError, BackendKind, CatalogueChange};
use crate::persistence::failpoint::Failpoint;
use crate::persistence::private;

/// Opens the one catalogue of a directory, or makes it; notes say what was set aside.
pub(super) fn open<C: Catalogue>(
    root: &Path,
    payload: &Payload,
    notes: &mut Vec<String>,
) -> Result<C, BackendError> {
    clear_away(root, C::PARTS);
    clear_away(root, C::Other::PARTS);
    settle::<C::Other, C>(root)?;
    settle::<C, C::Other>(root)?;
    let giving_up = root.join(GIVING_UP);
    if giving_up.exists() || is_there::<C>(root) && is_there::<C::Other>(root) {
        make_sign(root, &giving_up)?;
        let parts = C::PARTS.iter().chain(C::Other::PARTS);
        for part in parts.filter(|part| root.join(part).exists()) {
            payload.quarantine_room().take(&root.join(part), part)?;
        }
        remove_sign(root, &giving_up)?;
        notes.push(format!(
            "{} has a catalogue of {} and one of {}, and nothing says which of them counts: both count as lost, and \
             are set aside in quarantine/",
            root.display(),
            C::KIND,
            C::Other::KIND
        ));
    }
    if is_there::<C::Other>(root) { take_over(root, payload, notes) } else { C::open(root, payload, notes) }
}

/// Makes a catalogue of the other backend's, and removes that.
fn take_over<C: Catalogue>(
    root: &Path,
    payload: &Payload,
    notes: &mut Vec<String>,
) -> Result<C, BackendError> {
    let sign = taking_over(root, C::Other::KIND);
    make_sign(root, &sign)?;
    Failpoint::TAKEOVER_BEGUN.reached();
    let other = C::Other::open(root, payload, notes)?;
    let own = C::open(root, payload, notes)?;
    let keys = copy(&other, &own)?;
    // Its name is safe before the other's goes.
    sync_directory(root)?;
    Failpoint::TAKEOVER_COPIED.reached();
    drop(other);
    remove::<C::Other>(root)?;
    Failpoint::TAKEOVER_REMOVED.reached();
    remove_sign(root, &sign)?;
    tracing::info!(from = %C::Other::KIND, to = %C::KIND, keys, "took over the catalogue of another backend");
    Ok(own)
}

/// Ends a takeover that was broken off: what was not finished is none.
fn settle<From: Catalogue, To: Catalogue>(root: &Path) -> Result<(), BackendError> {
    let sign = taking_over(root, From::KIND);
    if !sign.exists() {
        return Ok(());
    }
    if is_there::<From>(root) {
        remove::<To>(root)?;
    }
    remove_sign(root, &sign)
}

/// Commits all of one to another, which has nothing; how many keys there were.
fn copy(from: &impl Catalogue, to: &impl Catalogue) -> Result<usize, BackendError> {
    let (mut after, mut keys): (Option<Vec<u8>>, _) = (None, 0);
    loop {
        let (mut found, mut bytes) = (Vec::new(), 0);
        from.scan(b"", after.as_deref(), &mut |key, value| {
            bytes += key.len() + value.len();
            found.push((key.to_vec(), value.to_vec()));
            if bytes < COMMIT_BYTES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        let changes: Vec<_> = found.iter().map(|(key, value)| CatalogueChange::Put(key, value)).collect();
        if changes.is_empty() {
            return Ok(keys);
        }
        to.commit(&changes)?;
        keys += found.len();
        after = found.pop().map(|(key, _)| key);
    }
}

fn is_there<C: Catalogue>(root: &Path) -> bool {
    C::PARTS.iter().any(|part| root.join(part).exists())
}

/// Has a catalogue that is closed be none any more, whole or not at all.
fn remove<C: Catalogue>(root: &Path) -> Result<(), BackendError> {
    for part in C::PARTS {
        let path = root.join(part);
        match fs::rename(&path, gone(root, part)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(BackendError::io("remove", &path, error));
            }
            _ => sync_directory(root)?,
        }
    }
    clear_away(root, C::PARTS);
    Ok(())
}

/// Deletes what was removed. What stays is tried again at the next start.
fn clear_away(root: &Path, parts: &[&str]) {
    for path in parts.iter().map(|part| gone(root, part)) {
        let deleted = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match deleted {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::debug!(path = %path.display(), %error, "what is left of a catalogue stays for now");
            }
            _ => {}
        }
    }
}

fn make_sign(root: &Path, sign: &Path) -> Result<(), BackendError> {
    let made = private::file().write(true).create(true).truncate(true).open(sign);
    made.map_err(|error| BackendError::io("create", sign, error))?;
    sync_directory(root)
}

fn remove_sign(root: &Path, sign: &Path) -> Result<(), BackendError> {
    fs::remove_file(sign).map_err(|error| BackendError::io("delete", sign, error))?;
    sync_directory(root)
}

fn taking_over(root: &Path, from: BackendKind) -> PathBuf {
    root.join(format!("taking-over-{from}"))
}

fn gone(root: &Path, part: &str) -> PathBuf {
    root.join(format!("{part}.gone"))
}

const GIVING_UP: &str = "giving-up";
/// Bytes of keys and values that are committed at a time.
const COMMIT_BYTES: usize = 1 << 20;
