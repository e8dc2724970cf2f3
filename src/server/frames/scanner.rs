//! Where HTTP/2's frames begin and end in the bytes of a connection, and of which kind each is (RFC 9113 §4.1).

/// A frame's type and flags, and the first 32 bits of what it carries where that says something here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload_bytes: u32,
    /// Of RST_STREAM the error code, of WINDOW_UPDATE the increment; else 0.
    pub(super) word: u32,
}

impl Frame {
    /// A frame by its head; its word is not known by that.
    fn of_head(&[a, b, c, kind, flags, s0, s1, s2, s3]: &[u8; HEAD_BYTES]) -> Self {
        let stream = u32::from_be_bytes([s0, s1, s2, s3]) & !(1 << 31);
        Self { kind, flags, stream, payload_bytes: u32::from_be_bytes([0, a, b, c]), word: 0 }
    }

    /// The frame that begins these bytes, its word left out; `None`: its head is not whole.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk().map(Self::of_head)
    }

    /// Its size, the head included.
    pub(super) fn bytes(&self) -> usize {
        HEAD_BYTES + self.payload_bytes as usize
    }

    /// The newest stream of the peer's, this frame included.
    pub(super) fn newest(&self, newest: u32) -> u32 {
        if self.kind == HEADERS { newest.max(self.stream) } else { newest }
    }
}

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;
/// That HEADERS begins with the fields of PRIORITY.
pub(super) const PRIORITY_FIELDS: u8 = 0x20;

/// The length of a frame's head.
pub(super) const HEAD_BYTES: usize = 9;
const WORD_BYTES: usize = 4;

/// RFC 9113 §7: nothing is wrong.
pub(super) const NO_ERROR: u32 = 0;

/// Puts a frame's head.
pub(super) fn put_head(out: &mut Vec<u8>, payload_bytes: usize, kind: u8, flags: u8, stream: u32) {
    let [_, a, b, c] = u32::try_from(payload_bytes).unwrap_or(u32::MAX).to_be_bytes();
    out.extend([a, b, c, kind, flags]);
    out.extend(stream.to_be_bytes());
}

/// Follows one direction of a connection, in pieces of any length.
#[derive(Debug, Default, Clone)]
pub(super) struct FrameScanner {
    /// The head of the frame that comes, as far as it is here, and its word.
    head: [u8; HEAD_BYTES + WORD_BYTES],
    have: usize,
    /// Bytes that belong to no head any more.
    skip: usize,
}

impl FrameScanner {
    /// Follows from here, after bytes that are no frame.
    pub(super) fn after(bytes: usize) -> Self {
        Self { skip: bytes, ..Self::default() }
    }

    /// Whether the next byte is a frame's first.
    pub(super) fn is_between_frames(&self) -> bool {
        self.skip == 0 && self.have == 0
    }

    /// Bytes to come before there is more to say: of a frame that has begun, or of the next one's head.
    pub(super) fn bytes_expected(&self) -> usize {
        if self.skip > 0 { self.skip } else { HEAD_BYTES.saturating_sub(self.have).max(1) }
    }

    /// Follows these bytes, and says which frames have begun in them.
    #[inline]
    pub(super) fn scan(&mut self, mut bytes: &[u8], mut begun: impl FnMut(Frame)) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return;
            }
            let wanted = if self.have >= HEAD_BYTES { HEAD_BYTES + WORD_BYTES } else { HEAD_BYTES };
            let taken = (wanted - self.have).min(bytes.len());
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have < wanted {
                return;
            }
            let (head, word) = self.head.split_first_chunk().expect("it is longer than a head");
            let frame = Frame::of_head(head);
            let has_word = matches!(frame.kind, RST_STREAM | WINDOW_UPDATE)
                && frame.payload_bytes as usize == WORD_BYTES;
            if has_word && self.have == HEAD_BYTES {
                continue;
            }
            let word = word.first_chunk().filter(|_| has_word).map_or(0, |word| u32::from_be_bytes(*word));
            begun(Frame { word, ..frame });
            self.skip = frame.bytes() - self.have;
            self.have = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_however_their_bytes_come() {
        let mut bytes = b"PREFACE".to_vec();
        let frames: [(u8, u8, u32, &[u8]); 6] = [
            (4, 0, 0, &[]),
            (WINDOW_UPDATE, 0, 0, &[0, 1, 0, 0]),
            (HEADERS, 4, 1, &[7; 40]),
            (DATA, END_STREAM, 1, &[9; 300]),
            (RST_STREAM, 0, 3, &[0, 0, 0, 8]),
            (WINDOW_UPDATE, 0, 5, &[1, 2, 3, 4, 5]),
        ];
        for (kind, flags, stream, payload) in frames {
            bytes.extend(&u32::try_from(payload.len()).unwrap().to_be_bytes()[1..]);
            bytes.extend([kind, flags]);
            bytes.extend(stream.to_be_bytes());
            bytes.extend(payload);
        }
        let frame =
            |kind, flags, stream, payload_bytes, word| Frame { kind, flags, stream, payload_bytes, word };
        let expected = [
            frame(4, 0, 0, 0, 0),
            frame(WINDOW_UPDATE, 0, 0, 4, 1 << 16),
            frame(HEADERS, 4, 1, 40, 0),
            frame(DATA, END_STREAM, 1, 300, 0),
            frame(RST_STREAM, 0, 3, 4, 8),
            frame(WINDOW_UPDATE, 0, 5, 5, 0),
        ];
        for piece in [1, 2, 3, 9, 10, 13, 64, 10_000] {
            let (mut scanner, mut found) = (FrameScanner::after(7), Vec::new());
            for piece in bytes.chunks(piece) {
                scanner.scan(piece, |frame| found.push(frame));
            }
            assert_eq!(found, expected, "in pieces of {piece}");
            assert!(scanner.is_between_frames());
            scanner.scan(&[0], |_| {});
            assert!(!scanner.is_between_frames());
        }
    }
}
