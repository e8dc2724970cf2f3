//! Reads everything, and says what is damaged.

use std::ops::ControlFlow;

use super::format::{all_blobs, footer, read_catalogue_value};
use super::reader::BlobReader;
use super::{BlobDamage, BlobError, Blobs, Digest, Result, catalogue_place, file_id};
use crate::clock::Now;
use crate::entry::Ttl;

/// Manifests that are looked at between two looks at the catalogue.
const KEYS_PER_SCAN: usize = 256;
/// Damages that are reported one by one.
const DAMAGES_TOLD: usize = 1_000;

/// What was found when everything was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verified {
    /// Blobs that are whole.
    pub blobs: u64,
    /// Their bytes, without overhead.
    pub bytes: u64,
    /// Blobs that are damaged.
    pub damaged: u64,
    /// The first 1,000 of the damages.
    pub damages: Vec<BlobDamage>,
}

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VerifyProgress {
    /// Blobs that were read so far and are whole.
    pub blobs: u64,
    /// Bytes that were read so far.
    pub bytes: u64,
}

impl Blobs {
    /// Reads every blob whole whose time has not ended: head, chunks, SHA-256, footer. `go_on` is asked after every
    /// chunk. Blobs that come, go or are replaced meanwhile may be left out.
    ///
    /// # Errors
    /// [`BlobError::Backend`]. Damage is no error here.
    pub fn verify(
        &self,
        now: Now,
        go_on: &mut dyn FnMut(VerifyProgress) -> ControlFlow<()>,
    ) -> Result<Verified> {
        let (mut verified, mut progress) = (Verified::default(), VerifyProgress::default());
        let mut after: Option<Vec<u8>> = None;
        loop {
            let mut found = Vec::new();
            self.0.backend.scan(all_blobs(), after.as_deref(), &mut |key, value| {
                found.push((key.to_vec(), read_catalogue_value(key, value)));
                if found.len() < KEYS_PER_SCAN { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            let Some((last, _)) = found.last() else { return Ok(verified) };
            after = Some(last.clone());
            for (key, manifest) in found {
                let read = match &manifest {
                    Ok(manifest) if self.has_expired(manifest, now) => continue,
                    Ok(manifest) => self.verify_one(&key, manifest.file, &mut |chunk| {
                        progress.bytes += chunk;
                        go_on(progress)
                    }),
                    Err(what) => Err(BlobDamage { place: catalogue_place(&key), offset: 0, what }.into()),
                };
                match read {
                    Ok(ControlFlow::Continue(())) => {
                        verified.blobs += 1;
                        verified.bytes += manifest.map_or(0, |manifest| manifest.size_bytes);
                        progress.blobs = verified.blobs;
                    }
                    Ok(ControlFlow::Break(())) => return Ok(verified),
                    Err(BlobError::Damaged(damage)) => {
                        verified.damaged += 1;
                        if verified.damages.len() < DAMAGES_TOLD {
                            verified.damages.push(damage);
                        }
                    }
                    Err(BlobError::NotFound) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// Reads one blob; `go_on` gets the length of each chunk in bytes.
    fn verify_one(
        &self,
        catalogue_key: &[u8],
        file: u64,
        go_on: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let opened = match self.0.backend.open(file_id(file)) {
            Err(error) if !error.is_not_found() => return Err(error.into()),
            other => other.ok(),
        };
        // Of what was replaced meanwhile the next verification tells.
        let manifest = self.manifest(catalogue_key)?.filter(|manifest| manifest.file == file);
        let manifest = manifest.ok_or(BlobError::NotFound)?;
        let Some(opened) = opened else {
            return Err(self.damage(file_id(file).to_string(), 0, "the file is not there").into());
        };
        let mut reader = BlobReader::new(self.clone(), opened, manifest, Ttl::Never, catalogue_key)?;
        let mut digest = Digest::default();
        while let Some(chunk) = reader.next_chunk()? {
            digest.update(&chunk);
            if go_on(chunk.len() as u64).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        let manifest = reader.manifest();
        if digest.sha256() != manifest.sha256 {
            return Err(reader.damage(0, "the SHA-256 of its content is another").into());
        }
        let written = footer(catalogue_key, manifest);
        let offset = manifest.footer_offset();
        let mut read = vec![0; written.len()];
        if reader.read_raw(offset, &mut read)? != read.len() || read != written {
            return Err(reader.damage(offset, "its footer is another").into());
        }
        Ok(ControlFlow::Continue(()))
    }
}
