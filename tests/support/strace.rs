//! strace on a process of ours: what it asks of the system, and answers that the system would give seldom.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};

use super::outside;

/// strace on a process, until its end.
pub(crate) struct Strace {
    strace: Child,
    file: PathBuf,
    /// Of strace, which tells of every new thread there: were it closed, that would end it.
    _stderr: BufReader<ChildStderr>,
}

impl Strace {
    /// Attaches to all threads of a process, with these flags, and writes to a file what is seen; `None`, and says why,
    /// where that cannot be.
    pub(crate) fn on(process: u32, flags: &[&str], file: PathBuf) -> Option<Self> {
        let spawned = Command::new("strace")
            .args(["-f", "-p", &process.to_string()])
            .args(flags)
            .arg("-o")
            .arg(&file)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut strace = match spawned {
            Ok(strace) => strace,
            Err(error) => {
                outside::skip(&format!("there is no strace (apt-get install strace): {error}"));
                return None;
            }
        };
        let mut said = String::new();
        let mut lines = BufReader::new(strace.stderr.take().unwrap());
        while lines.read_line(&mut said).unwrap() > 0 {
            if said.contains(" attached") {
                return Some(Self { strace, file, _stderr: lines });
            }
        }
        strace.wait().unwrap();
        outside::skip(&format!("no process may be traced here: {said}"));
        None
    }

    /// Lets go of the process; what it did.
    pub(crate) fn end(mut self) -> String {
        let told = Command::new("kill").args(["-INT", &self.strace.id().to_string()]).status().unwrap();
        assert!(told.success());
        self.strace.wait().unwrap();
        std::fs::read_to_string(&self.file).unwrap()
    }
}
