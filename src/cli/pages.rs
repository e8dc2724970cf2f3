//! Listings that come page by page: entries, blobs.

use bytes::Bytes;

use super::exit::{CliError, Exit};
use super::global::Global;
use super::output::note;
use crate::client::Client;

/// How much of a listing is wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// Items in all; `None`: all.
    pub(super) limit: Option<u64>,
    /// Items of a page.
    pub(super) page_size: u32,
}

/// Asks for pages until that is all: `print` is given a page's size and token, prints what comes and answers how many
/// items that were and the next token. Where there is nothing at all, says `none`.
pub(super) fn run(
    global: &Global,
    wanted: Wanted,
    none: &str,
    print: impl AsyncFn(&Client, u32, Bytes) -> Result<(usize, Bytes), CliError>,
) -> Result<Exit, CliError> {
    let limit = wanted.limit.unwrap_or(u64::MAX);
    let mut found = 0u64;
    super::block_on(async {
        let client = global.client()?;
        let mut page_token = Bytes::new();
        while found < limit {
            let page_size =
                u32::try_from(limit - found).map_or(wanted.page_size, |left| left.min(wanted.page_size));
            let (items, next) = print(&client, page_size, page_token).await?;
            found += items as u64;
            page_token = next;
            if page_token.is_empty() {
                break;
            }
        }
        Ok(())
    })?;
    if found == 0 {
        note(none);
        return Ok(Exit::NotMet);
    }
    Ok(Exit::Done)
}
