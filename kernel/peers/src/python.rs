//! Peers that live in Python: NumPy's BLAS and FLINT. One child process, told what to do line by line.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::clock::Runner;

/// The child; ends with its standard input.
pub struct Python {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Python {
    /// Starts the interpreter with one thread for whatever it calls.
    pub fn start(interpreter: &str) -> Result<Self, String> {
        let mut child = Command::new(interpreter)
            .arg("-c")
            .arg(include_str!("peer.py"))
            .envs(
                ["OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"]
                    .map(|name| (name, "1")),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{interpreter} can not be started: {error}"))?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (input, output) = pipes.ok_or("the child has no pipes")?;
        Ok(Self {
            child,
            input,
            output: BufReader::new(output),
        })
    }

    /// One line out, one line back.
    pub fn ask(&mut self, line: &str) -> Result<String, String> {
        let mut answer = String::new();
        writeln!(self.input, "{line}")
            .and_then(|()| self.input.flush())
            .and_then(|()| self.output.read_line(&mut answer))
            .map_err(|error| format!("{line}: {error}"))?;
        let answer = answer.trim_end();
        match answer.strip_prefix("ok") {
            Some(rest) => Ok(rest.trim_start().to_owned()),
            None => Err(format!("{line}: {answer}")),
        }
    }
}

impl Runner for Python {
    fn turn(&mut self, times: u32) -> f64 {
        let answer = self
            .ask(&format!("run {times}"))
            .expect("a peer that was prepared");
        answer.parse().expect("seconds")
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        // Without it the child waits for a line for ever.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
