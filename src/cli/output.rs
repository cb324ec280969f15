//! Data on standard output, the rest on standard error.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is the one file that prints")]

use std::io::IsTerminal;

use serde::Serialize;

/// How a command prints.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Output {
        Output { json }
    }

    /// Prints a command's result: as one JSON document, or as the text that `text` makes of it.
    pub(crate) fn result<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) {
        if self.json {
            match serde_json::to_string_pretty(value) {
                Ok(document) => println!("{document}"),
                Err(error) => eprintln!("error: the result cannot be written as JSON: {error}"),
            }
        } else {
            println!("{}", text(value).trim_end());
        }
    }

    /// Prints why a command failed; `gate` is the verdict where a gate refused.
    pub(crate) fn failure(self, message: &str, hint: Option<&str>, gate: Option<serde_json::Value>) {
        if self.json {
            let mut document = serde_json::json!({ "error": message, "hint": hint });
            if let Some(gate) = gate {
                document["gate"] = gate;
            }
            println!("{document:#}");
        }
        eprintln!("error: {message}");
        if let Some(hint) = hint {
            eprintln!("hint: {hint}");
        }
    }

    /// Says something on the way.
    pub(crate) fn note(self, message: &str) {
        eprintln!("{message}");
    }

    /// Whether somebody sits at a terminal, to be asked and shown bars.
    pub(crate) fn is_interactive(self) -> bool {
        std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
    }
}

/// Says what is odd, and goes on.
pub(crate) fn warn(message: &str) {
    eprintln!("warning: {message}");
}

/// Asks for a line on the terminal.
pub(crate) fn ask(question: &str) -> std::io::Result<String> {
    eprint!("{question} ");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}
