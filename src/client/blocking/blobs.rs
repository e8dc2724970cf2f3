//! Blobs read and written as files are.

use std::io::{self, BufRead, Read, Write};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};

use super::Client;
use crate::client::of_process::OfProcess;
use crate::client::{self, BlobInfo, ClientError, StoredBlob};

/// A blob that is read as it comes: [`client::BlobReader`], waited for.
#[derive(Debug)]
pub struct BlobReader {
    client: Client,
    reader: OfProcess<client::BlobReader>,
    info: BlobInfo,
}

impl BlobReader {
    pub(super) fn new(client: &Client, reader: client::BlobReader) -> Self {
        let info = reader.info().clone();
        Self { client: client.clone(), reader: OfProcess::new(reader), info }
    }

    /// As [`client::BlobReader::info`].
    #[must_use]
    pub fn info(&self) -> &BlobInfo {
        &self.info
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let reader = self.reader.get_mut()?;
        self.client.wait(reader.read(buffer))
    }
}

impl BufRead for BlobReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let reader = self.reader.get_mut()?;
        self.client.wait(reader.fill_buf())
    }

    fn consume(&mut self, count: usize) {
        // What was not filled cannot be consumed.
        if let Ok(reader) = self.reader.get_mut() {
            reader.consume(count);
        }
    }
}

/// A blob that is stored as it is written: [`client::BlobWriter`], waited for. Dropped before [`Self::finish`] it stores nothing.
#[derive(Debug)]
#[must_use = "what is written is stored by finish()"]
pub struct BlobWriter {
    client: Client,
    writer: OfProcess<client::BlobWriter>,
}

impl BlobWriter {
    pub(super) fn new(client: &Client, writer: client::BlobWriter) -> Self {
        Self { client: client.clone(), writer: OfProcess::new(writer) }
    }

    /// As [`client::BlobWriter::finish`].
    ///
    /// # Errors
    /// As there, and see [`Client::block_on`].
    pub fn finish(self) -> Result<StoredBlob, ClientError> {
        let writer = self.writer.into_inner()?;
        self.client.wait(writer.finish())
    }
}

impl Write for BlobWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let writer = self.writer.get_mut()?;
        self.client.wait(writer.write(buffer))
    }

    fn flush(&mut self) -> io::Result<()> {
        let writer = self.writer.get_mut()?;
        self.client.wait(writer.flush())
    }
}
