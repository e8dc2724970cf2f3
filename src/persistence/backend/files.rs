//! The backend `files`: plain files of ours, and nothing else.
//!
//! ```text
//! journal/ snapshot/ blob/ quarantine/   payload.rs
//! mark                                   mark.rs
//! catalogue/                             files/catalogue.rs, a log of commits
//! ```
//!
//! All that it takes back at opening is checksummed; what is damaged is set aside and told.

mod catalogue;
mod frame;

use super::on_files::OnFiles;
pub(super) use catalogue::LogCatalogue;

/// Plain files in a directory.
pub type FilesBackend = OnFiles<LogCatalogue>;
