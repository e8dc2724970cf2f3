//! What a scraper takes: its Accept and Accept-Encoding headers, read as RFC 9110 §12.5 has them.

use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, HeaderName};

use crate::telemetry::Format;

/// The format of metrics that is liked best; where none is, or all the same, the one that everything reads.
pub(super) fn format(headers: &HeaderMap) -> Format {
    let liking = |format| {
        let ranges = ranges(headers, &ACCEPT).enumerate();
        let named = ranges.filter_map(|(at, range)| Some((range.names(format)?, at, range.quality)));
        // The range that says most of a format decides on it; of two that say as much the first.
        let most = named.max_by_key(|(names, at, _)| (*names, std::cmp::Reverse(*at)));
        most.map_or((0, 0), |(_, at, quality)| (quality, at))
    };
    let ((plain, plain_at), (open, open_at)) = (liking(Format::Prometheus), liking(Format::OpenMetrics));
    if open > plain || open > 0 && open == plain && open_at < plain_at {
        Format::OpenMetrics
    } else {
        Format::Prometheus
    }
}

/// Whether gzip is taken.
pub(super) fn takes_gzip(headers: &HeaderMap) -> bool {
    let of = |name| ranges(headers, &ACCEPT_ENCODING).find(|range| range.media.eq_ignore_ascii_case(name));
    of("gzip").or_else(|| of("*")).is_some_and(|range| range.quality > 0)
}

/// An element of an Accept header.
struct Range<'h> {
    media: &'h str,
    version: Option<&'h str>,
    /// In thousandths.
    quality: u32,
}

impl Range<'_> {
    /// How much it says of a format; `None`: it is not of that.
    fn names(&self, format: Format) -> Option<u8> {
        let (media, all, versions): (_, _, &[&str]) = match format {
            Format::Prometheus => ("text/plain", "text/*", &["0.0.4"]),
            Format::OpenMetrics => ("application/openmetrics-text", "application/*", &["1.0.0", "0.0.1"]),
        };
        let is = |name| self.media.eq_ignore_ascii_case(name);
        match self.version {
            Some(version) if is(media) => versions.contains(&version).then_some(3),
            None if is(media) => Some(2),
            _ if is(all) => Some(1),
            _ if is("*/*") => Some(0),
            _ => None,
        }
    }
}

fn ranges<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = Range<'h>> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|element| {
        let mut parts = element.split(';').map(str::trim);
        let mut range = Range { media: parts.next().unwrap_or_default(), version: None, quality: 1_000 };
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name.trim() {
                "q" => range.quality = quality(value.trim()),
                "version" => range.version = Some(value.trim().trim_matches('"')),
                _ => {}
            }
        }
        range
    })
}

/// A weight from 0 to 1, in thousandths; what is none counts as 0.
fn quality(text: &str) -> u32 {
    let weight = text.parse::<f32>().ok().filter(|weight| (0.0..=1.0).contains(weight));
    weight.map_or(0, |weight| (weight * 1_000.0).round() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn the_format_is_the_one_that_is_liked_best() {
        let prometheus_2 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                            text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                            application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;q=0.3,\
                            text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        for accept in [
            prometheus_2,
            prometheus_3,
            "application/openmetrics-text",
            "text/plain;q=0.5, application/openmetrics-text; version=1.0.0; q=0.6",
            "application/openmetrics-text, text/plain",
            "*/*;q=0.1, application/openmetrics-text;q=0.2",
            "text/plain;q=0, Application/OpenMetrics-Text;q=0.001",
            "application/*",
        ] {
            assert_eq!(format(&asked(ACCEPT, accept)), Format::OpenMetrics, "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "text/plain",
            "text/plain;version=0.0.4",
            "application/openmetrics-text;q=0.5, text/plain;q=0.6",
            "application/openmetrics-text;q=0.5, */*",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text;q=nonsense",
            "text/plain, application/openmetrics-text",
            "application/json",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        ] {
            assert_eq!(format(&asked(ACCEPT, accept)), Format::Prometheus, "{accept}");
        }
        assert_eq!(format(&HeaderMap::new()), Format::Prometheus);
    }

    #[test]
    fn gzip_is_for_those_who_ask_for_it() {
        for (encoding, takes) in [
            ("gzip", true),
            ("deflate, gzip;q=0.5", true),
            ("*", true),
            ("gzip;q=0, *", false),
            ("gzip;q=0", false),
            ("br", false),
            ("", false),
        ] {
            assert_eq!(takes_gzip(&asked(ACCEPT_ENCODING, encoding)), takes, "{encoding}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}
