//! The functions to fuzz, and a client that reads their output.

use fastapi_sse_fast::json::float::write_float;
use fastapi_sse_fast::json::string::write_string;
use fastapi_sse_fast::json::style::Spelling;
pub use fastapi_sse_fast::log::{position, split};
use fastapi_sse_fast::output::Output;
pub use fastapi_sse_fast::{lines as text, output, wire};

/// Write a JSON string, in FastAPI's spelling or in the compact one.
pub fn string(text: &str, compact: bool, out: &mut Output) {
    write_string(text, spelling(compact), out);
}

/// Write a JSON number, or `null`.
pub fn float(value: f64, compact: bool, out: &mut Output) {
    write_float(value, spelling(compact), out);
}

fn spelling(compact: bool) -> Spelling {
    if compact {
        Spelling::Compact
    } else {
        Spelling::Fastapi
    }
}

/// Split a text into lines, one character at a time. No line break follows the last line.
pub fn lines(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut previous = ' ';
    for c in text.chars() {
        match c {
            '\n' if previous == '\r' => {}
            '\r' | '\n' => lines.push(String::new()),
            other => lines.last_mut().unwrap().push(other),
        }
        previous = c;
    }
    lines
}

/// The state of a client after it has read a stream: "Interpreting an event stream".
#[derive(Debug, Default, PartialEq)]
pub struct Client {
    /// The type, the data and the last event id of each event.
    pub events: Vec<(String, String, String)>,
    pub retry: Option<String>,
    pub comments: Vec<String>,
}

/// Read a stream from its beginning.
pub fn read(stream: &str) -> Client {
    let mut client = Client::default();
    let (mut data, mut kind, mut id) = (String::new(), String::new(), String::new());
    let mut lines = lines(stream.strip_prefix('\u{feff}').unwrap_or(stream));
    lines.pop();
    for line in lines {
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
        match name {
            "" if line.is_empty() => {
                if data.pop().is_some() {
                    let kind = if kind.is_empty() { "message" } else { &kind };
                    let event = (kind.to_owned(), data, id.clone());
                    client.events.push(event);
                }
                (data, kind) = (String::new(), String::new());
            }
            "" => client.comments.push(value),
            "data" => {
                data.push_str(&value);
                data.push('\n');
            }
            "event" => kind = value,
            "id" if !value.contains('\0') => id = value,
            "retry" if !value.is_empty() && value.chars().all(|c| c.is_ascii_digit()) => {
                client.retry = Some(value);
            }
            _ => {}
        }
    }
    client
}
