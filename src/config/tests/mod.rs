//! Rules that hold over several settings: secrets, sizes, listeners.

mod book;

use super::*;

fn load(args: ServeArgs, variables: &[(&str, &str)]) -> Result<LoadedConfig, ConfigError> {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), value.into())).collect();
    ServeConfig::load(&args, &variables)
}

fn load_file(text: &str) -> Result<LoadedConfig, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("larder.toml");
    std::fs::write(&path, text).unwrap();
    load(ServeArgs::default().with_file(path.display().to_string()), &[])
}

#[test]
fn no_setting_tells_a_secret_wherever_it_was_given() {
    let secrets = [
        "postgres://user:hunter2@db/x",
        "tcp://user:hunter2@db:7400",
        "tcp://user:hunter2",
        "user:hunter2@db:7400",
        "http://c:4317?token=hunter2",
    ];
    for setting in &SETTINGS {
        for secret in secrets {
            let variable = load(ServeArgs::default(), &[(&setting.variable(), secret)]);
            let file = load_file(&format!("{} = {secret:?}", setting.flag));
            for loaded in [variable, file] {
                let told = match &loaded {
                    Ok(loaded) => format!("{loaded:?} {:?}", loaded.warnings),
                    Err(error) => format!("{error} {error:?}"),
                };
                // What has no secret by its meaning may be shown: a directory, a zone, an id.
                let is_plain = loaded.is_ok() && setting.flag != "otlp";
                assert!(is_plain || !told.contains("hunter2"), "{}: {told}", setting.flag);
            }
        }
    }
    let key = load(ServeArgs::default().with("cluster-key", "hunter2"), &[]);
    let error = key.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"), "the key in its file's place: {error}");
    let config = load(ServeArgs::default().with_file("https://u:hunter2@a"), &[]);
    let error = config.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    for file in [
        "\"tcp://u:hunter2@a\" = 1",
        "tcp://u:hunter2@a = 1",
        "origin = tcp://u:hunter2@a",
        "origin = \"tcp://u:hunter2@a",
    ] {
        let error = load_file(file).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
    let args = ServeArgs::default().with("origin", "postgres://u:hunter2@a");
    assert!(!format!("{args:?}").contains("hunter2"));
}

#[test]
fn what_is_refused_is_still_named() {
    let origin = ServeArgs::default().with("origin", "postgres://user:secret@db/x");
    assert_eq!(
        load(origin, &[]).unwrap_err().to_string(),
        "--origin postgres://***@db/x is not served by this build yet: it loads missing keys from nowhere; leave it \
         out"
    );
}

#[test]
fn sizes_are_bytes_or_have_the_units_of_kubernetes_too() {
    let memory = |text| load(ServeArgs::default(), &[("LARDER_MEMORY", text)]);
    for (text, bytes) in
        [("1Gi", 1 << 30), ("512Mi", 512 << 20), ("1073741824", 1 << 30), ("2G", 2_000_000_000)]
    {
        assert_eq!(memory(text).unwrap().config.cache.memory.0, bytes, "{text}");
    }
    assert_eq!(load_file("memory = 1_073_741_824").unwrap().config.cache.memory.0, 1 << 30);
    assert_eq!(load_file("disk-limit = 0").unwrap().config.disk.disk_limit, None);
    let error = memory("512m").unwrap_err().to_string();
    assert!(error.contains("a thousandth") && error.contains("64MiB"), "{error}");
}

#[test]
fn an_address_that_another_listener_has_is_refused_however_it_is_written() {
    let listen = |listen: &str, admin: &str| {
        let args = ServeArgs::default().with("listen", listen).with("admin", admin).with("insecure", "true");
        load(args, &[])
    };
    for (data, admin) in [
        ("tcp://127.0.0.1:1", "tcp://[::ffff:127.0.0.1]:1"),
        ("tcp://[::]:1", "tcp://127.0.0.1:1"),
        ("tcp://0.0.0.0:1", "tcp://127.0.0.1:1"),
    ] {
        let error = listen(data, admin).unwrap_err();
        assert!(matches!(error, ConfigError::Contradiction { .. }), "{error}");
    }
    assert!(listen("tcp://0.0.0.0:1", "tcp://127.0.0.1:2").is_ok());
}

#[test]
fn an_advertised_address_is_one_that_another_can_reach() {
    for url in ["tcp://0.0.0.0:7400", "tcp://[::]:7400", "tcp://[::ffff:0.0.0.0]:7400"] {
        let args = ServeArgs::default().with("advertise", url);
        let error = load(args, &[]).unwrap_err().to_string();
        assert!(error.contains(url) && error.contains("every address"), "{error}");
    }
    let args = ServeArgs::default().with("advertise", "tcp://fd00::1:7400");
    assert_eq!(load(args, &[]).unwrap().config.identity(&[]).advertise, "tcp://[fd00::1]:7400");
}

#[test]
fn a_flag_that_a_program_gives_and_that_there_is_not_is_refused() {
    let error = load(ServeArgs::default().with("memroy", "64MiB"), &[]).unwrap_err();
    assert_eq!(error.to_string(), "there is no setting \"memroy\"; did you mean \"memory\"?");
}
