//! Splits bytes that are complete events into single ones, since each gets a position.

use std::fmt;
use std::iter;

use memchr::memchr2;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::bytes;

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
    let mut start = 0;
    for line in lines(frames) {
        if !line.is_empty() {
            check_line(frames, &line)?;
        } else if start == line.start {
            start = line.next;
        } else {
            events.push(&frames[start..line.next]);
            start = line.next;
        }
    }
    Ok((events, &frames[start..]))
}

/// Check that no event in `frames` has an `id`.
///
/// # Errors
///
/// `HasId`.
pub fn check_no_id(frames: &[u8]) -> Result<(), HasId> {
    lines(frames).try_for_each(|line| check_line(frames, &line))
}

/// A line, as indexes: where it starts, where its end of line is, and where the next one starts.
struct Line {
    start: usize,
    end: usize,
    next: usize,
}

impl Line {
    const fn is_empty(&self) -> bool {
        self.start == self.end
    }
}

/// Return the lines that end with an end of line.
fn lines(frames: &[u8]) -> impl Iterator<Item = Line> {
    let mut start = 0;
    iter::from_fn(move || {
        let end = start + memchr2(b'\n', b'\r', &frames[start..])?;
        let is_crlf = frames[end..].starts_with(b"\r\n");
        let next = end + if is_crlf { 2 } else { 1 };
        let line = Line { start, end, next };
        start = next;
        Some(line)
    })
}

fn check_line(frames: &[u8], line: &Line) -> Result<(), HasId> {
    // "If the line contains a U+003A COLON character (:)", the name is what comes before it;
    // otherwise it is the whole line.
    let line = &frames[line.start..line.end];
    if line == b"id" || line.starts_with(b"id:") {
        return Err(HasId);
    }
    Ok(())
}

/// Split bytes that are events. Return what follows the last of them, too.
#[pyfunction]
#[pyo3(signature = (frames, /))]
pub(crate) fn split_events<'py>(
    py: Python<'py>,
    frames: &[u8],
) -> PyResult<(Vec<Bound<'py, PyBytes>>, Bound<'py, PyBytes>)> {
    let (events, rest) = events(frames)?;
    let events = events.into_iter().map(|event| bytes::copy(py, event));
    Ok((events.collect::<PyResult<_>>()?, bytes::copy(py, rest)?))
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
