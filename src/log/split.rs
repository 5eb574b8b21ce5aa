//! Splits bytes that are complete events into single ones, since each gets a position.

use std::fmt;

use memchr::memchr2;
use pyo3::prelude::*;

/// An event has an `id` already: in a log, ids are positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HasId;

impl fmt::Display for HasId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event of a channel or a run must not have an id: the log gives it one")
    }
}

impl std::error::Error for HasId {}

/// Return the events in `frames`, each with the blank line that ends it, and what follows the last
/// of them. Blank lines between events are left out.
///
/// # Errors
///
/// `HasId`, if a line of any of them is an `id` field.
pub fn events(frames: &[u8]) -> Result<(Vec<&[u8]>, &[u8]), HasId> {
    let mut events = Vec::new();
    let (mut start, mut at) = (0, 0);
    while let Some(length) = memchr2(b'\n', b'\r', &frames[at..]) {
        let line = &frames[at..at + length];
        let line_end = if frames[at + length..].starts_with(b"\r\n") {
            2
        } else {
            1
        };
        at += length + line_end;
        if !line.is_empty() {
            // "If the line contains a U+003A COLON character (:)", the name is what comes before
            // it; otherwise it is the whole line.
            if line == b"id" || line.starts_with(b"id:") {
                return Err(HasId);
            }
        } else if start == at - line_end {
            start = at;
        } else {
            events.push(&frames[start..at]);
            start = at;
        }
    }
    Ok((events, &frames[start..]))
}

/// Raise if an event in `frames` has an `id`.
#[pyfunction]
#[pyo3(signature = (frames, /))]
pub(crate) fn check_no_id(frames: &[u8]) -> PyResult<()> {
    Ok(events(frames).map(drop)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_goes_on_is_left() {
        let whole: &[u8] = b"data: 1\n\n";
        assert_eq!(
            events(b"data: 1\n\ndata: 2\n"),
            Ok((vec![whole], &b"data: 2\n"[..]))
        );
    }

    #[test]
    fn events_end_at_blank_lines() {
        let split = |text: &'static str| {
            events(text.as_bytes()).map(|(found, rest)| {
                assert_eq!(rest, b"");
                found
                    .into_iter()
                    .map(|event| str::from_utf8(event).unwrap())
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(split("data: 1\n\n"), Ok(vec!["data: 1\n\n"]));
        assert_eq!(
            split("data: 1\n\ndata: 2\ndata: 3\n\n"),
            Ok(vec!["data: 1\n\n", "data: 2\ndata: 3\n\n"])
        );
        assert_eq!(
            split("data: 1\r\n\r\n\r\ndata: 2\r\r: 3\r\n\n"),
            Ok(vec!["data: 1\r\n\r\n", "data: 2\r\r", ": 3\r\n\n"])
        );
        assert_eq!(split("\n\ndata\n\n\n"), Ok(vec!["data\n\n"]));
        assert_eq!(split("data: 1\n\nid: 1\n\n"), Err(HasId));
        assert_eq!(split("data: 1\rid\r\r"), Err(HasId));
        assert_eq!(split("idle: 1\n\n"), Ok(vec!["idle: 1\n\n"]));
    }
}
