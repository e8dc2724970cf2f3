//! A file's bytes as a [`MemoryBackend`](super::MemoryBackend) has them: what is synced and what is not.

use std::ops::Range;

use super::draws::Draws;

#[derive(Debug, Clone, Default)]
pub(super) struct Bytes {
    pub(super) bytes: Vec<u8>,
    /// Up to here the operating system takes them for written.
    pub(super) synced: usize,
    /// Stretches of those that it is wrong about, since a sync failed; in order.
    pub(super) lost: Vec<Range<usize>>,
    /// Behind the bytes are zeroes up to here, if that is further: the file's writer has reserved them.
    pub(super) extent: usize,
    /// The same, as it was synced last.
    pub(super) synced_extent: usize,
}

impl Bytes {
    /// The length of the file, with what is reserved.
    pub(super) fn len(&self) -> usize {
        self.bytes.len().max(self.extent)
    }

    /// All that is read.
    pub(super) fn whole(&self) -> Vec<u8> {
        let mut whole = self.bytes.clone();
        whole.resize(self.len(), 0);
        whole
    }

    /// As it is when nobody writes it any more: zeroes are bytes like others.
    pub(super) fn ended(&self) -> Self {
        Self { bytes: self.whole(), extent: 0, synced_extent: 0, ..self.clone() }
    }

    pub(super) fn cut(&mut self, length: usize) {
        self.bytes.truncate(length);
        self.extent = self.extent.min(length);
        self.synced = self.synced.min(length);
        self.lost.retain_mut(|lost| {
            lost.end = lost.end.min(length);
            lost.start < lost.end
        });
    }

    /// What the disk has of it after a crash.
    pub(super) fn survive(&self, mut draws: Option<&mut Draws>, holes: bool) -> Self {
        let mut left = self.clone();
        // What a failed sync lost at the very end is as good as never synced.
        let mut safe = self.synced;
        while let Some(lost) = left.lost.pop_if(|lost| lost.end == safe) {
            safe = lost.start;
        }
        for lost in std::mem::take(&mut left.lost) {
            left.bytes[lost].fill(0);
        }
        let tail = self.bytes.len() - safe;
        let kept = draws.as_mut().map_or(0, |draws| draws.below(tail + 1));
        left.bytes.truncate(safe + kept);
        if let Some(draws) = draws.as_mut().filter(|_| holes) {
            for sector in left.bytes[safe..].chunks_mut(SECTOR_BYTES).filter(|_| draws.coin()) {
                sector.fill(0);
            }
        }
        let zeroes = match draws {
            None => self.synced_extent,
            Some(draws) => {
                let most = self.extent.max(self.synced_extent);
                left.bytes.len() + draws.below(most.saturating_sub(left.bytes.len()) + 1)
            }
        };
        left.bytes.resize(zeroes.max(left.bytes.len()), 0);
        (left.extent, left.synced_extent) = (0, 0);
        left.synced = left.bytes.len();
        left
    }
}

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;
