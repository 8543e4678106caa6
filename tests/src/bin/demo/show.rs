//! How the demo looks.

use std::io::{IsTerminal as _, Write as _};

use serde_json::Value;

/// A line that opens a part.
pub fn heading(text: &str) {
    line(&format!("\n{}", styled("1", text)));
}

/// A plain line.
pub fn line(text: &str) {
    let mut stdout = std::io::stdout().lock();
    // Who closed our output does not want to see more; the checks go on.
    let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}

/// The last line of a run that went well.
pub fn success(text: &str) {
    line(&format!("\n{}", styled("1;32", text)));
}

/// The last line of a run that did not.
pub fn failure(text: &str) {
    let _ = writeln!(std::io::stderr(), "\ndemo failed: {text}");
}

fn styled(code: &str, text: &str) -> String {
    if std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    } else {
        text.to_owned()
    }
}

/// Who computed what, from the status of a job.
pub fn contributions(status: &Value) {
    let mut rows = vec![["device", "tiles", "rows", "ms", "MFLOPS"].map(str::to_owned)];
    for part in status["contributions"].as_array().into_iter().flatten() {
        rows.push([
            part["name"].as_str().unwrap_or("?").to_owned(),
            part["tiles"].to_string(),
            part["rows"].to_string(),
            format!("{:.1}", part["compute_ms"].as_f64().unwrap_or(f64::NAN)),
            format!("{:.0}", part["mflops"].as_f64().unwrap_or(f64::NAN)),
        ]);
    }
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: [usize; 5] = std::array::from_fn(width);
    for row in &rows {
        let [device, numbers @ ..] = row;
        let mut text = format!("  {device:<0$}", widths[0]);
        for (number, width) in numbers.iter().zip(&widths[1..]) {
            text.push_str(&format!("  {number:>width$}"));
        }
        line(&text);
    }
}
