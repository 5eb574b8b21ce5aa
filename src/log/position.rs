//! Positions in logs, as they stand in the `id` field: `Ab3dE9xZ.17`, or `Ab3dE9xZ.17~9fQ2mK1c.4`
//! for a stream of several logs.
//!
//! The epoch names one life of a log; the offset counts its events from 1, without holes. There is
//! no clock in a position, and it says nothing about which log it belongs to: only the
//! application's route does.

use std::fmt::Write;

use pyo3::prelude::*;
use pyo3::types::PyString;

/// Longer epochs are nobody's: a store makes them of eight characters.
const LONGEST_EPOCH: usize = 32;

/// A position in one log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position<'a> {
    /// Names the life of the log.
    pub epoch: &'a str,
    /// The last event that a client has: 0 before the first one.
    pub offset: u64,
}

impl<'a> Position<'a> {
    /// Parse one position. There is one way to write each: no sign, no leading zero.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let (epoch, digits) = text.split_once('.')?;
        let offset = digits.parse().ok()?;
        let is_plain = digits == "0" || digits.starts_with(|digit| matches!(digit, '1'..='9'));
        let is_epoch = (1..=LONGEST_EPOCH).contains(&epoch.len())
            && epoch.bytes().all(|byte| byte.is_ascii_alphanumeric());
        (is_plain && is_epoch).then_some(Self { epoch, offset })
    }

    /// Parse the positions of a stream of several logs, in the order of the logs.
    #[must_use]
    pub fn parse_all(text: &'a str) -> Option<Vec<Self>> {
        text.split('~').map(Self::parse).collect()
    }
}

/// Append `epoch.offset`.
pub(crate) fn write(out: &mut String, epoch: &str, offset: u64) {
    out.push_str(epoch);
    // Writing to a `String` cannot fail.
    let _ = write!(out, ".{offset}");
}

/// Return the position in several logs.
pub(crate) fn join(epochs: &[String], offsets: &[u64]) -> String {
    let mut text = String::new();
    for (epoch, offset) in epochs.iter().zip(offsets) {
        if !text.is_empty() {
            text.push('~');
        }
        write(&mut text, epoch, *offset);
    }
    text
}

/// Return the epoch and the offset of each position in a `Last-Event-ID`, if it is well-formed.
#[pyfunction]
#[pyo3(signature = (text, /))]
pub(crate) fn parse_last_event_id<'a>(
    text: &'a Bound<'_, PyString>,
) -> Option<Vec<(&'a str, u64)>> {
    // A `str` with a lone surrogate cannot be encoded as UTF-8.
    let positions = Position::parse_all(text.to_str().ok()?)?;
    Some(positions.iter().map(|it| (it.epoch, it.offset)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_has_one_spelling() {
        let position = |epoch, offset| Some(Position { epoch, offset });
        for (text, expected) in [
            ("Ab3dE9xZ.0", position("Ab3dE9xZ", 0)),
            ("a.18446744073709551615", position("a", u64::MAX)),
            ("a.18446744073709551616", None),
            ("a.01", None),
            ("a.+1", None),
            ("a.-1", None),
            ("a.", None),
            (".1", None),
            ("a", None),
            ("", None),
            ("a.1.2", None),
            ("ä.1", None),
            ("a b.1", None),
            ("a.1 ", None),
            ("a.1~b.2", None),
        ] {
            assert_eq!(Position::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_parsed() {
        let mut text = String::new();
        write(&mut text, "Ab3dE9xZ", 17);
        text.push('~');
        write(&mut text, "b", 0);
        assert_eq!(text, "Ab3dE9xZ.17~b.0");
        let positions = Position::parse_all(&text).unwrap();
        assert_eq!(positions.len(), 2);
        assert_eq!(positions[0].offset, 17);
        assert_eq!(positions[1].epoch, "b");
    }
}
