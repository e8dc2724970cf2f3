//! Reading a value: never more than a node can be set to take, whatever the source holds.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use super::exit::{CliError, local};
use crate::entry::{ByteSize, VALUE_BYTES_MAX};

/// What is read of a pipe or a device, which tells no length: all of it has to be held before a node can say that it is
/// too long. A file may be as long as any node takes.
const STREAM_BYTES_MAX: usize = 64 << 20;

const STDIN: &str = "cannot read stdin";

/// Why a source gave no value.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error(
        "it is longer than {}, the longest value that any node takes; store it with larder put-blob",
        ByteSize(VALUE_BYTES_MAX as u64)
    )]
    FileTooLong,
    #[error(
        "it goes on after {}, which is all that is read of a pipe or a device; give --file a regular file, or store \
         it with larder put-blob",
        ByteSize(STREAM_BYTES_MAX as u64)
    )]
    StreamTooLong,
    /// The operating system says.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// All of a file, a device or a pipe; - is stdin.
pub(super) fn value(path: &Path) -> Result<Vec<u8>, CliError> {
    if path.as_os_str() == "-" {
        return stdin();
    }
    // Of a pipe that was named the writer is waited for.
    let read = File::open(path).map_err(ReadError::Io).and_then(|file| all_of(&file));
    read.map_err(|error| cannot(format!("cannot read {}", path.display()), error))
}

/// All of stdin.
pub(super) fn stdin() -> Result<Vec<u8>, CliError> {
    all_of(&open_stdin()?).map_err(|error| cannot(STDIN.to_owned(), error))
}

/// All of stdin, which nobody has named. cron, `ssh -n` and containers have /dev/null in its place, and where it is closed
/// Rust opens that: neither was meant as an empty value.
pub(super) fn stdin_unnamed() -> Result<Vec<u8>, CliError> {
    if is_null(&open_stdin()?).map_err(local(STDIN))? {
        let what = "there is no value, and stdin is closed or /dev/null; give VALUE ('' is an empty one), --file FILE or a pipe";
        return Err(CliError::Usage(what.to_owned()));
    }
    stdin()
}

fn open_stdin() -> Result<File, CliError> {
    let stdin = io::stdin().as_fd().try_clone_to_owned().map_err(local(STDIN))?;
    Ok(File::from(stdin))
}

fn is_null(file: &File) -> io::Result<bool> {
    let about = file.metadata()?;
    let null = Path::new("/dev/null").metadata();
    Ok(about.file_type().is_char_device() && null.is_ok_and(|null| null.rdev() == about.rdev()))
}

/// All of a regular file. What else has come to stand at its place is an error, and is not waited for.
pub(super) fn regular_file(path: &Path) -> Result<Vec<u8>, ReadError> {
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = File::options().read(true).custom_flags(nonblocking).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file").into());
    }
    all_of(&file)
}

fn cannot(what: String, error: ReadError) -> CliError {
    match error {
        ReadError::Io(source) => local(what)(source),
        too_long => CliError::Usage(format!("{what}: {too_long}")),
    }
}

/// A file that says its length is not read where that is too much.
fn all_of(file: &File) -> Result<Vec<u8>, ReadError> {
    let about = file.metadata()?;
    if !about.is_file() {
        return up_to(file, STREAM_BYTES_MAX, 0)?.ok_or(ReadError::StreamTooLong);
    }
    match usize::try_from(about.len()) {
        // It may grow meanwhile.
        Ok(bytes) if bytes <= VALUE_BYTES_MAX => {
            up_to(file, VALUE_BYTES_MAX, bytes)?.ok_or(ReadError::FileTooLong)
        }
        _ => Err(ReadError::FileTooLong),
    }
}

/// What a source gives to its end, about `expected` bytes. `None`: that is more than `max` bytes; one more is read at most.
fn up_to(source: impl Read, max: usize, expected: usize) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    bytes.try_reserve(expected).map_err(|_| io::ErrorKind::OutOfMemory)?;
    source.take(max as u64 + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() <= max).then_some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts what is read of an endless source.
    struct Endless(usize);

    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            buffer.fill(0);
            self.0 += buffer.len();
            Ok(buffer.len())
        }
    }

    #[test]
    fn an_endless_source_is_refused_one_byte_past_the_limit() {
        let mut source = Endless(0);
        assert_eq!(up_to(&mut source, 100_000, 0).unwrap(), None);
        assert_eq!(source.0, 100_001);
        assert_eq!(up_to(&[7; 10][..], 10, 3).unwrap().as_deref(), Some(&[7; 10][..]));
        assert_eq!(up_to(&[7; 11][..], 10, 11).unwrap(), None);
        assert!(matches!(all_of(&File::open("/dev/zero").unwrap()), Err(ReadError::StreamTooLong)));
    }

    #[test]
    fn a_long_file_is_refused_unread() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(VALUE_BYTES_MAX as u64 + 1).unwrap();
        assert!(matches!(all_of(&file), Err(ReadError::FileTooLong)));
    }

    #[test]
    fn a_pipe_in_a_files_place_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).unwrap();
        let error = regular_file(&path).unwrap_err();
        assert!(error.to_string().contains("no regular file"), "{error}");
    }
}
