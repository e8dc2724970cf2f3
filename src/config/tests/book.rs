//! The table of settings as the book's configuration page has it, and the test that the page has it so.
//!
//! `UPDATE_BOOK=1 cargo test --lib book` writes it into the page.

use std::fmt::Write as _;
use std::path::Path;

use crate::config::setting::Setting;
use crate::config::table::SETTINGS;

const PAGE: &str = "docs/src/configuration.md";
const BEGIN: &str = "<!-- made from src/config/table.rs by UPDATE_BOOK=1 cargo test --lib book -->\n";
const END: &str = "<!-- end of what is made -->\n";

/// A heading and a table for each group.
fn tables() -> String {
    let mut titles: Vec<&str> = Vec::new();
    for setting in &SETTINGS {
        if !titles.contains(&setting.group) {
            titles.push(setting.group);
        }
    }
    let mut text = String::new();
    for title in titles {
        let _ = write!(text, "\n### {title}\n\n");
        text += "| setting | meaning | values | default | a change holds from |\n|---|---|---|---|---|\n";
        text.extend(SETTINGS.iter().filter(|setting| setting.group == title).map(row));
    }
    text + "\n"
}

fn row(setting: &Setting) -> String {
    let Setting { flag, value_name, .. } = setting;
    let (meaning, values) = (setting.meaning(), setting.values());
    if !setting.is_served() {
        return format!("| `{flag}` {value_name} | {meaning} | {values} | | |\n");
    }
    let (default, effect) = (setting.default_text(), setting.effect.as_str());
    format!("| `{flag}` {value_name} | {meaning} | {values} | {default} | {effect} |\n")
}

#[test]
fn the_book_has_the_table_of_settings() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    // The book is in the repository alone, not in the package.
    let Ok(page) = std::fs::read_to_string(&path) else { return };
    let (before, rest) = page.split_once(BEGIN).expect("the page says where the tables begin");
    let (has, after) = rest.split_once(END).expect("the page says where the tables end");
    let wanted = tables();
    if std::env::var_os("UPDATE_BOOK").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{wanted}{END}{after}")).unwrap();
    } else if has != wanted {
        panic!(
            "{PAGE} differs from the table of settings; UPDATE_BOOK=1 cargo test --lib book writes this:\n{wanted}"
        );
    }
}
