//! Blocks of fields (HPACK, RFC 7541), as far as they are looked at without a table.

/// Whether a block of fields changes the table of fields, or cannot be read (RFC 7541 §6).
pub(super) fn changes_table(mut block: &[u8]) -> bool {
    while let Some(&first) = block.first() {
        let read = match first {
            0x80.. => skip_integer(&mut block, 7).is_some(),
            0x20.. => return true,
            _ => skip_literal(&mut block).is_some(),
        };
        if !read {
            return true;
        }
    }
    false
}

/// A field that is not put into the table.
fn skip_literal(block: &mut &[u8]) -> Option<()> {
    if skip_integer(block, 4)? == 0 {
        skip_string(block)?;
    }
    skip_string(block)
}

fn skip_string(block: &mut &[u8]) -> Option<()> {
    let bytes = skip_integer(block, 7)?;
    *block = block.get(bytes..)?;
    Some(())
}

/// An integer whose prefix has `bits` bits (RFC 7541 §5.1), of at most four bytes.
fn skip_integer(block: &mut &[u8], bits: u8) -> Option<usize> {
    let (&first, mut rest) = block.split_first()?;
    let max = (1_u8 << bits).wrapping_sub(1);
    let mut value = usize::from(first & max);
    if value == usize::from(max) {
        let mut shift = 0;
        loop {
            let (&byte, after) = rest.split_first()?;
            rest = after;
            value += usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
            if shift > 14 {
                return None;
            }
        }
    }
    *block = rest;
    Some(value)
}

/// A response's head as a block of fields that says the same to every peer: nothing of it is put into a table.
pub(super) fn of_response<B>(response: &http::Response<B>) -> Vec<u8> {
    /// `:status: 200` in the static table.
    const STATUS_200: u8 = 0x88;
    let mut block = vec![STATUS_200];
    for (name, value) in response.headers() {
        block.push(0);
        put_string(&mut block, name.as_str().as_bytes());
        put_string(&mut block, value.as_bytes());
    }
    block
}

fn put_string(block: &mut Vec<u8>, bytes: &[u8]) {
    const PREFIX: usize = 0x7f;
    if bytes.len() < PREFIX {
        block.push(bytes.len() as u8);
    } else {
        block.push(PREFIX as u8);
        let mut rest = bytes.len() - PREFIX;
        while rest >= 0x80 {
            block.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        block.push(rest as u8);
    }
    block.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_cannot_be_read_are_left_to_http2() {
        for block in
            [&[0x00][..], &[0x04, 9, 1], &[0x10, 0x7f, 0xff, 0xff, 0xff], &[0x0f], &[0x3f, 0xe1, 0x1f]]
        {
            assert!(changes_table(block), "{block:x?}");
        }
        assert!(
            !changes_table(&[0x83, 0x86, 0x04, 1, b'/', 0x10, 1, b'a', 1, b'b'])
                && changes_table(&[0x83, 0x40, 1, b'a', 1, b'b'])
        );
    }
}
