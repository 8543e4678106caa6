//! How a command ends when it does not succeed.

use crate::error::ApiError;

use super::text;

/// The exit code, as the contract has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The job failed, or something on this device did.
    Failed = 1,
    /// Bad usage or bad input.
    Usage = 2,
    /// No node was reached.
    Unreachable = 3,
}

/// What went wrong and what to do, for the person at the terminal.
#[derive(Debug, Clone)]
pub struct CliError {
    /// How the program ends.
    pub exit: Exit,
    /// Names the input and what is wrong with it.
    pub message: String,
    /// What to do; may be empty.
    pub hint: String,
}

impl CliError {
    /// Bad usage or bad input.
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            exit: Exit::Usage,
            message: message.into(),
            hint: hint.into(),
        }
    }

    /// A job that failed.
    pub fn failed(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            exit: Exit::Failed,
            message: message.into(),
            hint: hint.into(),
        }
    }

    /// No node reached.
    pub fn unreachable(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            exit: Exit::Unreachable,
            message: message.into(),
            hint: hint.into(),
        }
    }

    /// The same, with the input named first.
    pub fn about(mut self, input: &str) -> Self {
        if !self.message.contains(input) {
            self.message = format!("{input}: {}", self.message);
        }
        self
    }

    /// Message and hint, without control characters and broken between words where `columns`, the
    /// width of the terminal, is known.
    pub fn render(&self, columns: Option<usize>) -> String {
        let mut lines = text::wrapped(
            &format!("gemmesh: {}", text::clean(&self.message)),
            0,
            columns,
        );
        lines.push('\n');
        if !self.hint.is_empty() {
            // Under the first word of the hint, which stands after `try: `.
            let hint = text::wrapped(&text::clean(&self.hint), 7, columns);
            lines.push_str(&format!("  try: {hint}\n"));
        }
        lines
    }
}

impl From<ApiError> for CliError {
    fn from(error: ApiError) -> Self {
        from_status(error.status, error.message, error.hint)
    }
}

/// The error that a node's answer means.
pub fn from_status(status: u16, message: String, hint: String) -> CliError {
    let exit = match status {
        // The input is fine, the job is not: it runs still, failed or was cancelled.
        409 => Exit::Failed,
        400..=428 | 430..=499 => Exit::Usage,
        _ => Exit::Failed,
    };
    CliError {
        exit,
        message,
        hint,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_map_to_exit_codes() {
        for (status, exit) in [
            (400, Exit::Usage),
            (404, Exit::Usage),
            (409, Exit::Failed),
            (413, Exit::Usage),
            (422, Exit::Usage),
            (429, Exit::Failed),
            (500, Exit::Failed),
            (503, Exit::Failed),
        ] {
            let error = from_status(status, String::new(), String::new());
            assert_eq!(error.exit, exit, "{status}");
        }
    }

    #[test]
    fn the_input_is_named_once() {
        let error = CliError::usage("line 3 is short", "").about("a.csv");
        assert_eq!(error.message, "a.csv: line 3 is short");
        assert_eq!(error.about("a.csv").message, "a.csv: line 3 is short");
    }

    #[test]
    fn messages_from_a_node_are_printed_without_control_codes() {
        let error = CliError::failed("bad\u{1b}[2J", "do\u{7} it");
        assert_eq!(error.render(None), "gemmesh: bad[2J\n  try: do it\n");
    }
}
