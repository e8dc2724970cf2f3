//! Metrics as text, in either of the two formats that scrapers ask for.
//!
//! | | Prometheus text 0.0.4 | OpenMetrics 1.0.0 |
//! |---|---|---|
//! | a counter's family | `x_total`, as its samples | `x` |
//! | help | escapes `\` and line ends | also `"` |
//! | end | nothing | `# EOF` |
//!
//! A family is named once, in full as its samples are, and has a head only if it has a sample.

use std::fmt::{self, Write};

/// A text format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Prometheus text, version 0.0.4: what everything reads.
    #[default]
    Prometheus,
    /// OpenMetrics text, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The media type.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What a family's samples are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A sample's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value {
    Whole(u64),
    Float(f64),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(value) => value.fmt(f),
            Self::Float(value) if value.is_infinite() => {
                f.write_str(if *value > 0.0 { "+Inf" } else { "-Inf" })
            }
            Self::Float(value) => value.fmt(f),
        }
    }
}

/// A page of metrics that is being written.
#[derive(Debug)]
pub(super) struct Exposition {
    text: String,
    format: Format,
}

/// A label's name and value.
pub(super) type Label<'l> = (&'static str, &'l str);

impl Exposition {
    pub(super) fn new(format: Format) -> Self {
        Self { text: String::with_capacity(16 << 10), format }
    }

    /// Begins a family.
    pub(super) fn family(&mut self, (name, help): (&'static str, &'static str), kind: Kind) -> Family<'_> {
        debug_assert_eq!(kind == Kind::Counter, name.ends_with("_total"), "{name}");
        Family { page: self, name, help, kind, has_head: false }
    }

    pub(super) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

/// A family whose samples are being written.
#[derive(Debug)]
pub(super) struct Family<'p> {
    page: &'p mut Exposition,
    name: &'static str,
    help: &'static str,
    kind: Kind,
    has_head: bool,
}

impl Family<'_> {
    /// Writes a sample.
    pub(super) fn sample(&mut self, labels: &[Label<'_>], value: impl Into<Value>) {
        self.head();
        self.line("", labels, None, value.into());
    }

    /// Writes a histogram: each bucket's upper bound, and how many lie below it, the last of which has all.
    pub(super) fn histogram(
        &mut self,
        labels: &[Label<'_>],
        buckets: impl IntoIterator<Item = (f64, u64)>,
        (count, sum): (u64, f64),
    ) {
        self.head();
        for (bound, below) in buckets {
            self.line("_bucket", labels, Some(bound), below.into());
        }
        self.line("_bucket", labels, Some(f64::INFINITY), count.into());
        self.line("_sum", labels, None, sum.into());
        self.line("_count", labels, None, count.into());
    }

    fn head(&mut self) {
        if std::mem::replace(&mut self.has_head, true) {
            return;
        }
        let is_open = self.page.format == Format::OpenMetrics;
        let name = if is_open { self.name.trim_end_matches("_total") } else { self.name };
        let kind = match self.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let text = &mut self.page.text;
        put(text, format_args!("# HELP {name} "));
        escape(text, self.help, is_open);
        put(text, format_args!("\n# TYPE {name} {kind}\n"));
    }

    fn line(&mut self, ending: &str, labels: &[Label<'_>], bound: Option<f64>, value: Value) {
        let text = &mut self.page.text;
        text.push_str(self.name);
        text.push_str(ending);
        let mut separator = '{';
        for (name, value) in labels {
            text.push(separator);
            separator = ',';
            text.push_str(name);
            text.push_str("=\"");
            escape(text, value, true);
            text.push('"');
        }
        if let Some(bound) = bound {
            put(text, format_args!("{separator}le=\"{}\"", Value::Float(bound)));
            separator = ',';
        }
        if separator == ',' {
            text.push('}');
        }
        put(text, format_args!(" {value}\n"));
    }
}

fn put(text: &mut String, what: fmt::Arguments<'_>) {
    // A String takes whatever is written to it.
    let _ = text.write_fmt(what);
}

fn escape(text: &mut String, from: &str, quotes: bool) {
    for c in from.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '"' if quotes => text.push_str("\\\""),
            c => text.push(c),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    /// Reads a page as its format's grammar has it: the families' kinds, and the samples' values by what stands before
    /// them.
    pub(in crate::telemetry) fn read(
        text: &str,
        format: Format,
    ) -> (BTreeMap<String, String>, BTreeMap<String, f64>) {
        let (mut families, mut samples) = (BTreeMap::new(), BTreeMap::new());
        let mut lines = text.strip_suffix('\n').expect("the last line ends").split('\n').peekable();
        let mut current: Option<(String, String)> = None;
        let mut help = None;
        while let Some(line) = lines.next() {
            if line == "# EOF" {
                assert!(format == Format::OpenMetrics && lines.peek().is_none(), "an end that is none");
                return (families, samples);
            }
            if let Some(rest) = line.strip_prefix("# HELP ") {
                help = Some(rest.split_once(' ').expect("a name and a help").0.to_owned());
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a name and a type");
                assert_eq!(help.take().as_deref(), Some(name), "the help stands before the type");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(families.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} twice");
                current = Some((name.to_owned(), kind.to_owned()));
            } else {
                assert!(!line.starts_with('#'), "{line}");
                let (sample, value) = line.rsplit_once(' ').expect("a sample and its value");
                let (family, kind) = current.as_ref().expect("a family before its samples");
                check_sample(sample, family, kind, format);
                let value = if value == "+Inf" { f64::INFINITY } else { value.parse().expect("a number") };
                assert!(samples.insert(sample.to_owned(), value).is_none(), "{sample} twice");
            }
        }
        assert_eq!(format, Format::Prometheus, "OpenMetrics has an end");
        (families, samples)
    }

    fn check_sample(sample: &str, family: &str, kind: &str, format: Format) {
        let (name, labels) = sample
            .split_once('{')
            .map_or((sample, ""), |(name, labels)| (name, labels.strip_suffix('}').expect("labels end")));
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{name}");
        let ending = name.strip_prefix(family).unwrap_or_else(|| panic!("{name} stands below {family}"));
        let endings: &[&str] = match (kind, format) {
            ("counter", Format::OpenMetrics) => &["_total"],
            ("histogram", _) => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        assert!(endings.contains(&ending), "{name} of {kind} {family}");
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name} of {kind} {family}");
        let names = label_names(labels);
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{sample}");
        assert_eq!(names.iter().any(|name| name == "le"), ending == "_bucket", "{sample}");
    }

    /// The names of labels, which are read to their end.
    fn label_names(labels: &str) -> Vec<String> {
        let (mut names, mut rest) = (Vec::new(), labels);
        while !rest.is_empty() {
            let (name, value) = rest.split_once("=\"").expect("a name and a value");
            names.push(name.trim_start_matches(',').to_owned());
            let mut chars = value.char_indices();
            let end = loop {
                match chars.next().expect("a value ends") {
                    (at, '"') => break at,
                    (_, '\\') => assert!(chars.next().is_some_and(|(_, c)| "\\n\"".contains(c)), "{value}"),
                    _ => {}
                }
            };
            rest = &value[end + 1..];
        }
        names
    }

    #[test]
    fn both_formats_say_the_same_each_in_its_own_words() {
        let page = |format| {
            let mut page = Exposition::new(format);
            page.family(("a_total", "Says \"a\" \\"), Kind::Counter).sample(&[], 3);
            page.family(("none", "Has no sample"), Kind::Gauge);
            let mut gauge = page.family(("b_seconds", "B"), Kind::Gauge);
            gauge.sample(&[("of", "x \"y\" \\ z\n"), ("and", "")], 0.25);
            page.family(("c_seconds", "C"), Kind::Histogram).histogram(
                &[("of", "x")],
                [(0.5, 1), (2.0, 3)],
                (4, 9.5),
            );
            page.finish()
        };
        let common = "# HELP b_seconds B\n# TYPE b_seconds gauge\n\
                      b_seconds{of=\"x \\\"y\\\" \\\\ z\\n\",and=\"\"} 0.25\n\
                      # HELP c_seconds C\n# TYPE c_seconds histogram\n\
                      c_seconds_bucket{of=\"x\",le=\"0.5\"} 1\nc_seconds_bucket{of=\"x\",le=\"2\"} 3\n\
                      c_seconds_bucket{of=\"x\",le=\"+Inf\"} 4\nc_seconds_sum{of=\"x\"} 9.5\nc_seconds_count{of=\"x\"} 4\n";
        let plain = "# HELP a_total Says \"a\" \\\\\n# TYPE a_total counter\na_total 3\n";
        assert_eq!(page(Format::Prometheus), format!("{plain}{common}"));
        let open = "# HELP a Says \\\"a\\\" \\\\\n# TYPE a counter\na_total 3\n";
        assert_eq!(page(Format::OpenMetrics), format!("{open}{common}# EOF\n"));
        for format in [Format::Prometheus, Format::OpenMetrics] {
            assert_eq!(read(&page(format), format).1.len(), 7);
        }
    }
}
