//! A trace file, read one request at a time.
//!
//! ```text
//!  NAME.u64.zst    ┌─────────┐┌─────────┐…      NAME.u64s.zst   ┌─────────┬──────────┐…
//!  (zstd)          │ key u64 ││ key u64 │       (zstd)          │ key u64 │ size u64 │
//!                  └─────────┘└─────────┘                       └─────────┴──────────┘   little-endian
//! ```

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use zstd::stream::read::Decoder;

use crate::cli::exit::{CliError, local};

/// Traces are compressed with windows of up to 2^27 B; zstd refuses more than that unless told.
const WINDOW_LOG_MAX: u32 = 31;
const VALUE_BYTES_DEFAULT: u64 = 100;
const READ_BUFFER_BYTES: usize = 256 << 10;

/// One request of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) key: u64,
    pub(super) value_bytes: u64,
}

/// An open trace.
pub(super) struct Trace {
    path: PathBuf,
    input: BufReader<Decoder<'static, BufReader<File>>>,
    is_sized: bool,
    value_bytes: Option<u64>,
}

impl Trace {
    /// Opens a trace. Values have the given size, or else the trace's, or else 100 B.
    pub(super) fn open(path: &Path, value_bytes: Option<usize>) -> Result<Self, CliError> {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let is_sized = if name.ends_with(".u64s.zst") {
            true
        } else if name.ends_with(".u64.zst") {
            false
        } else {
            return Err(CliError::Usage(format!(
                "{name:?} does not say what it holds: a trace is named NAME.u64.zst (keys) or NAME.u64s.zst \
                 (keys and sizes)"
            )));
        };
        let cannot = || format!("cannot read the trace {}", path.display());
        let file = File::open(path).map_err(local(cannot()))?;
        let mut decoder = Decoder::new(file).map_err(local(cannot()))?;
        decoder.window_log_max(WINDOW_LOG_MAX).map_err(local(cannot()))?;
        let input = BufReader::with_capacity(READ_BUFFER_BYTES, decoder);
        let value_bytes = value_bytes.map(|bytes| bytes as u64);
        Ok(Self { path: path.to_owned(), input, is_sized, value_bytes })
    }

    /// The next request. None: the trace is through.
    pub(super) fn next(&mut self) -> Result<Option<Request>, CliError> {
        let request = self.read();
        request.map_err(local(format!("the trace {} is damaged or cut off", self.path.display())))
    }

    fn read(&mut self) -> io::Result<Option<Request>> {
        if self.input.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let key = self.number()?;
        let size = if self.is_sized { Some(self.number()?) } else { None };
        let value_bytes = self.value_bytes.or(size).unwrap_or(VALUE_BYTES_DEFAULT);
        Ok(Some(Request { key, value_bytes }))
    }

    fn number(&mut self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.input.read_exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(name: &str, bytes: &[u8], value_bytes: Option<usize>) -> Result<Vec<Request>, CliError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        std::fs::write(&path, zstd::encode_all(bytes, 3).unwrap()).unwrap();
        let mut trace = Trace::open(&path, value_bytes)?;
        let mut requests = Vec::new();
        while let Some(request) = trace.next()? {
            requests.push(request);
        }
        Ok(requests)
    }

    #[test]
    fn traces_hold_keys_or_keys_and_sizes() {
        let bytes: Vec<u8> = [7_u64, 300, 8, 400].iter().flat_map(|number| number.to_le_bytes()).collect();
        let request = |key, value_bytes| Request { key, value_bytes };
        let sized = open("t.u64s.zst", &bytes, None).unwrap();
        assert_eq!(sized, [request(7, 300), request(8, 400)]);
        let keys = open("t.u64.zst", &bytes, None).unwrap();
        assert_eq!(keys, [7, 300, 8, 400].map(|key| request(key, 100)));
        assert_eq!(open("t.u64s.zst", &bytes, Some(5)).unwrap()[0], request(7, 5));
        assert_eq!(open("t.u64.zst", &[], None).unwrap(), []);
    }

    #[test]
    fn a_trace_that_is_cut_off_or_of_another_kind_is_refused() {
        let error = open("t.u64.zst", &[1, 2, 3], None).unwrap_err().to_string();
        assert!(error.contains("cut off"), "{error}");
        let error = open("t.csv", &[], None).unwrap_err().to_string();
        assert!(error.contains("NAME.u64.zst"), "{error}");
    }
}
