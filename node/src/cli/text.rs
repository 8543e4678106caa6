//! Text for people: what came from elsewhere made harmless, numbers made readable.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use gemmesh_protocol::time::WallTime;

/// Removes what could steer a terminal or reorder what is read: control characters and
/// bidirectional overrides. Line breaks become spaces.
pub fn clean(text: &str) -> String {
    text.chars()
        .filter_map(|c| match c {
            '\n' | '\t' => Some(' '),
            '\u{200e}'
            | '\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
            | '\u{feff}' => None,
            c if c.is_control() => None,
            c => Some(c),
        })
        .collect()
}

/// JSON with every control character escaped, also those that JSON itself lets through.
pub fn json(value: &serde_json::Value) -> String {
    let text = serde_json::to_string_pretty(value).expect("a value is always printable");
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        // Such characters occur inside strings only, where an escape means the same.
        if c != '\n' && c.is_control() {
            let _ = write!(safe, "\\u{:04x}", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    safe
}

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes with a binary unit: `1.5 GiB`.
pub fn bytes(number: u64) -> String {
    let mut value = number as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" {
                format!("{number} B")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// Seconds as people say them: `0.042 s`, `3.1 s`, `2 min 5 s`, `1 h 3 min`.
pub fn seconds(value: f64) -> String {
    if !value.is_finite() || value < 0.0 {
        return "?".to_owned();
    }
    match value {
        v if v < 1.0 => format!("{v:.3} s"),
        v if v < 60.0 => format!("{v:.1} s"),
        v if v < 3_600.0 => format!("{} min {} s", v as u64 / 60, v as u64 % 60),
        v => format!("{} h {} min", v as u64 / 3_600, v as u64 / 60 % 60),
    }
}

/// MFLOPS with separators and no needless digits.
pub fn mflops(value: f64) -> String {
    if !value.is_finite() || value < 0.0 {
        return "-".to_owned();
    }
    if value < 10.0 {
        format!("{value:.1}")
    } else {
        grouped(value.round() as u64)
    }
}

/// MFLOPS as `3.2 GFLOP/s`.
pub fn gflops(mflops: f64) -> String {
    if mflops < 1_000.0 {
        format!("{mflops:.0} MFLOP/s")
    } else {
        format!("{:.1} GFLOP/s", mflops / 1_000.0)
    }
}

/// Shortens to what takes `max` columns of a terminal, the last one an ellipsis when something is
/// missing.
pub fn shortened(text: &str, max: usize) -> String {
    console::truncate_str(text, max, "…").into_owned()
}

/// Breaks `text` between words so that no line is wider than `columns`; lines after the first begin
/// with `indent` spaces, and the first is taken to have as much before it.
pub fn wrapped(text: &str, indent: usize, columns: Option<usize>) -> String {
    let Some(columns) = columns else {
        return text.to_owned();
    };
    let mut wrapped = String::new();
    let mut used = indent;
    for word in text.split(' ') {
        let width = console::measure_text_width(word);
        if used > indent && used + 1 + width > columns {
            wrapped.push('\n');
            wrapped.push_str(&" ".repeat(indent));
            used = indent;
        } else if used > indent {
            wrapped.push(' ');
            used += 1;
        }
        wrapped.push_str(word);
        used += width;
    }
    wrapped
}

/// How long ago `then` was: `12 s`, `5 min`, `3 h`, `2 days`.
pub fn age(then: WallTime) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    });
    // Clocks of other devices may be ahead.
    match now.saturating_sub(then.0) / 1_000 {
        s if s < 60 => format!("{s} s"),
        s if s < 3_600 => format!("{} min", s / 60),
        s if s < 172_800 => format!("{} h", s / 3_600),
        s => format!("{} days", s / 86_400),
    }
}

/// `1 tile`, `2 tiles`.
pub fn count(number: u64, word: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {word}{plural}", grouped(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_elsewhere_can_not_steer_the_terminal() {
        assert_eq!(clean("a\u{1b}[31mred\u{7}\u{9b}2J\u{7f}b"), "a[31mred2Jb");
        assert_eq!(clean("x\u{202e}y\u{2066}z\nw"), "xyz w");
        assert_eq!(clean("Küche 📱 厨房"), "Küche 📱 厨房");
    }

    #[test]
    fn json_keeps_its_meaning_and_has_no_control_characters() {
        let value = serde_json::json!({"name": "a\u{9b}b\u{1b}c\n", "list": [1, "\u{7f}"]});
        let text = json(&value);
        assert!(
            text.chars().all(|c| c == '\n' || !c.is_control()),
            "{text:?}"
        );
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text).unwrap(),
            value
        );
    }

    #[test]
    fn lines_break_between_words() {
        let text = "fix: open UDP 5353 and TCP 8080";
        assert_eq!(wrapped(text, 2, None), text);
        assert_eq!(wrapped(text, 2, Some(40)), text);
        assert_eq!(
            wrapped(text, 2, Some(16)),
            "fix: open UDP\n  5353 and TCP\n  8080"
        );
        assert_eq!(wrapped("unbreakable", 2, Some(4)), "unbreakable");
    }

    #[test]
    fn ages_are_rough_and_never_negative() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let now = u64::try_from(now.as_millis()).unwrap();
        assert_eq!(age(WallTime(u64::MAX)), "0 s");
        assert_eq!(age(WallTime(now - 125_000)), "2 min");
        assert_eq!(age(WallTime(now - 7_300_000)), "2 h");
        assert_eq!(age(WallTime(now - 400_000_000)), "4 days");
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(bytes(1_023), "1023 B");
        assert_eq!(bytes(3 << 29), "1.5 GiB");
        assert_eq!(bytes(u64::MAX), "16777216.0 TiB");
        assert_eq!(seconds(0.0421), "0.042 s");
        assert_eq!(seconds(125.4), "2 min 5 s");
        assert_eq!(seconds(3_800.0), "1 h 3 min");
        assert_eq!(seconds(f64::NAN), "?");
        assert_eq!(mflops(12_345.6), "12,346");
        assert_eq!(mflops(f64::INFINITY), "-");
        assert_eq!(gflops(2_500.0), "2.5 GFLOP/s");
        assert_eq!(shortened("kitchen", 5), "kitc…");
        assert_eq!(shortened("厨房的电脑", 5), "厨房…");
        assert_eq!(count(1, "tile"), "1 tile");
        assert_eq!(count(1_200, "tile"), "1,200 tiles");
    }
}
