//! A store in a file under a lock: for several nodes on one machine, tests and demonstrations.
//!
//! ```text
//!   PATH          the document; replaced by a rename, so that it is whole at every moment
//!   PATH.lives    who lives, and until when by the machine's clock
//!   PATH.lock     held while either is read or written
//! ```
//!
//! It is not for a network file system, whose locks and renames are another matter.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh64::xxh64;

use super::document::Document;
use super::store::{Life, Revision, Store, StoreError, Stored, Swapped, read_document};
use crate::clock::{unix_us, whole_ms};

/// A document in a file.
#[derive(Debug, Clone)]
pub struct FileStore {
    files: Arc<Files>,
}

#[derive(Debug)]
struct Files {
    /// For errors: `file:PATH`.
    name: String,
    document: PathBuf,
    lives: PathBuf,
    lock: PathBuf,
}

/// A life as it is written.
#[derive(Serialize, Deserialize)]
struct Lasting {
    #[serde(flatten)]
    life: Life,
    until_unix_ms: u64,
}

/// How often a file is looked at whose change is waited for.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// The longest that a life lasts: a machine that was restarted, or whose clock was set back, has none of longer ago.
const LIFE_MAX: Duration = Duration::from_secs(3_600);

impl FileStore {
    /// The store whose document lies at this path, in a directory that is there. Nothing is read yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        let beside = |suffix: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        let files = Files {
            name: format!("file:{}", path.display()),
            document: path.to_owned(),
            lives: beside(".lives"),
            lock: beside(".lock"),
        };
        Self { files: Arc::new(files) }
    }

    /// Does something with the files on a thread that may wait for them.
    async fn with_files<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Files) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let files = self.files.clone();
        let done = tokio::task::spawn_blocking(move || work(&files)).await;
        done.unwrap_or_else(|ended| Err(self.files.unavailable("being used", &ended)))
    }
}

impl Files {
    fn unavailable(&self, while_: &str, problem: &dyn std::fmt::Display) -> StoreError {
        StoreError::Unavailable { store: self.name.clone(), problem: format!("while {while_}: {problem}") }
    }

    fn not_written(&self, problem: &io::Error) -> StoreError {
        StoreError::NotWritten { store: self.name.clone(), problem: problem.to_string() }
    }

    /// Holds the lock until the file that it gives is dropped.
    fn lock(&self) -> Result<File, StoreError> {
        let open = || {
            let file = File::options().create(true).truncate(false).write(true).open(&self.lock)?;
            file.lock()?;
            Ok(file)
        };
        open()
            .map_err(|error: io::Error| self.unavailable(&format!("locking {}", self.lock.display()), &error))
    }

    /// The file's bytes; none where it is not there.
    fn bytes(&self, path: &Path) -> Result<Vec<u8>, StoreError> {
        match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            read => read.map_err(|error| self.unavailable(&format!("reading {}", path.display()), &error)),
        }
    }

    fn stored(&self) -> Result<Stored, StoreError> {
        let _held = self.lock()?;
        let bytes = self.bytes(&self.document)?;
        let document = if bytes.is_empty() { None } else { Some(read_document(&self.name, &bytes)?) };
        let now = now_ms();
        let mut lives: Vec<Life> = self
            .lasting()?
            .into_iter()
            .filter(|lasting| lasting.lasts(now))
            .map(|lasting| lasting.life)
            .collect();
        lives.sort();
        Ok(Stored { revision: revision_of(&bytes), document, lives })
    }

    /// Lives that were written. A damaged file has none: each process writes its own again when it keeps it.
    fn lasting(&self) -> Result<Vec<Lasting>, StoreError> {
        Ok(serde_json::from_slice(&self.bytes(&self.lives)?).unwrap_or_default())
    }

    fn swap(&self, expected: &Revision, document: &Document) -> Result<Swapped, StoreError> {
        let _held = self.lock()?;
        if revision_of(&self.bytes(&self.document)?) != *expected {
            return Ok(Swapped::Outdone);
        }
        let bytes = document.to_json();
        replace(&self.document, &bytes).map_err(|error| self.not_written(&error))?;
        Ok(Swapped::Written(revision_of(&bytes)))
    }

    fn live(&self, life: &Life, ttl: Duration) -> Result<(), StoreError> {
        let _held = self.lock()?;
        let now = now_ms();
        let mut lives = self.lasting()?;
        lives.retain(|other| other.lasts(now) && other.life != *life);
        if !ttl.is_zero() {
            let until_unix_ms = now.saturating_add(whole_ms(ttl.min(LIFE_MAX)));
            lives.push(Lasting { life: life.clone(), until_unix_ms });
        }
        let bytes = serde_json::to_vec_pretty(&lives).expect("numbers and texts are JSON");
        replace(&self.lives, &bytes).map_err(|error| self.not_written(&error))
    }
}

impl Lasting {
    fn lasts(&self, now_ms: u64) -> bool {
        (now_ms + 1..=now_ms.saturating_add(whole_ms(LIFE_MAX))).contains(&self.until_unix_ms)
    }
}

impl Store for FileStore {
    fn name(&self) -> &str {
        &self.files.name
    }

    fn read(&self) -> BoxFuture<'_, Result<Stored, StoreError>> {
        self.with_files(Files::stored).boxed()
    }

    fn compare_and_swap<'a>(
        &'a self,
        expected: &'a Revision,
        document: &'a Document,
    ) -> BoxFuture<'a, Result<Swapped, StoreError>> {
        let (expected, document) = (expected.clone(), document.clone());
        self.with_files(move |files| files.swap(&expected, &document)).boxed()
    }

    fn changed<'a>(&'a self, since: &'a Revision) -> BoxFuture<'a, Result<Stored, StoreError>> {
        let wait = async {
            loop {
                let stored = self.read().await?;
                if stored.revision != *since {
                    return Ok(stored);
                }
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        };
        wait.boxed()
    }

    fn keep_alive<'a>(&'a self, life: &'a Life, ttl: Duration) -> BoxFuture<'a, Result<(), StoreError>> {
        let life = life.clone();
        self.with_files(move |files| files.live(&life, ttl)).boxed()
    }
}

/// Replaces the content of a file: a reader finds the old content or the new, whole, also after a power cut.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    let written = (|| {
        let mut file = File::create(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&draft, path)
    })();
    if written.is_err() {
        // What is left of it is of no use, and is overwritten next time.
        let _ = fs::remove_file(&draft);
        return written;
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

/// An epoch is in every document, so that each has bytes of its own.
fn revision_of(bytes: &[u8]) -> Revision {
    Revision(format!("{:016x}", xxh64(bytes, 0)))
}

fn now_ms() -> u64 {
    unix_us() / 1_000
}
