//! Slots: placeholder values that can be found in an encoded frame.
//!
//! A placeholder is a string or a number, so that it passes through validation, copying and
//! serialization like any other value. It begins with a random prefix that each process draws for
//! itself, so no data contains it by chance.

use std::fmt::Write;
use std::ops::Range;

use memchr::memmem;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyInt, PyString};

use crate::output::Output;

/// The prefixes of all placeholders of this process.
pub(crate) struct Prefixes {
    text: String,
    /// Decimal digits. The first one is not zero, so that the number keeps all of them.
    digits: String,
}

impl Prefixes {
    pub(crate) fn of(py: Python<'_>) -> PyResult<&Self> {
        static PREFIXES: PyOnceLock<Prefixes> = PyOnceLock::new();
        PREFIXES.get_or_try_init(py, || {
            let secrets = py.import("secrets")?;
            let random: u128 = secrets.call_method1("randbits", (127,))?.extract()?;
            Ok(Self {
                text: format!("slot-{random:032x}-"),
                digits: format!("1{random:039}"),
            })
        })
    }

    /// Return whether `text` begins as the text of a slot does.
    pub(crate) fn is_slot_text(&self, text: &str) -> bool {
        text.starts_with(&self.text)
    }

    fn text_of(&self, name: &str) -> String {
        let mut text = self.text.clone();
        for byte in name.bytes() {
            let _ = write!(text, "{byte:02x}"); // Writing to a String cannot fail.
        }
        text.push('.');
        text
    }

    fn digits_of(&self, name: &str) -> String {
        let mut digits = self.digits.clone();
        for byte in name.bytes() {
            let _ = write!(digits, "{byte:03}");
        }
        digits
    }
}

/// Return the text that is the placeholder of a slot.
///
/// # Errors
///
/// Those of `secrets`, if the system has no source of randomness.
#[pyfunction]
#[pyo3(signature = (name, /))]
pub(crate) fn slot_text(py: Python<'_>, name: &str) -> PyResult<String> {
    Ok(Prefixes::of(py)?.text_of(name))
}

/// Return the digits of the number that is the placeholder of a slot.
///
/// # Errors
///
/// As [`slot_text`].
#[pyfunction]
#[pyo3(signature = (name, /))]
pub(crate) fn slot_digits(py: Python<'_>, name: &str) -> PyResult<String> {
    Ok(Prefixes::of(py)?.digits_of(name))
}

/// Return the name of the slot whose placeholder `value` is, or `None` if it is not a placeholder.
///
/// # Errors
///
/// As [`slot_text`].
#[pyfunction]
#[pyo3(signature = (value, /))]
pub(crate) fn slot_name(value: &Bound<'_, PyAny>) -> PyResult<Option<String>> {
    let prefixes = Prefixes::of(value.py())?;
    if let Ok(text) = value.cast::<PyString>() {
        let text = text.to_str().unwrap_or_default();
        return Ok(Placeholder::from_whole(text, prefixes)
            .filter(|placeholder| placeholder.is_text)
            .map(|placeholder| placeholder.name));
    }
    match value.cast::<PyInt>() {
        Ok(number) if number.extract::<i64>().is_err() => {
            // A number with more digits than Python converts to text is not a placeholder.
            let digits = number
                .str()
                .map(|digits| digits.to_string())
                .unwrap_or_default();
            Ok(Placeholder::from_whole(&digits, prefixes)
                .filter(|placeholder| !placeholder.is_text)
                .map(|placeholder| placeholder.name))
        }
        _ => Ok(None),
    }
}

/// The part of a frame that a slot stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A value inside the JSON of `data`.
    Json,
    /// All lines of `data`, with the name of the field.
    Data,
    /// The line of `event`.
    Event,
    /// The line of `id`.
    Id,
}

/// A slot that was found in a frame.
pub(crate) struct FoundSlot {
    pub(crate) name: String,
    pub(crate) place: Place,
    /// The position of the slot in the text without slots.
    pub(crate) at: usize,
}

/// Cut the slots out of a frame: return them in order, and append the rest of the frame to `text`.
///
/// # Errors
///
/// The message for a slot that is not a whole value.
pub(crate) fn cut_out_slots(
    frame: &[u8],
    prefixes: &Prefixes,
    data_is_slot: bool,
    text: &mut Output,
) -> Result<Vec<FoundSlot>, String> {
    let mut found = Vec::new();
    for line in frame.split_inclusive(|b| *b == b'\n') {
        let mut at = 0;
        while let Some(placeholder) = Placeholder::find(line, at, prefixes) {
            let (place, from, to) = placeholder.place(line, data_is_slot)?;
            text.extend_from_slice(&line[at..from]);
            found.push(FoundSlot {
                name: placeholder.name,
                place,
                at: text.len(),
            });
            at = to;
        }
        text.extend_from_slice(&line[at..]);
    }
    Ok(found)
}

/// Return the range of the `data: ` lines of a frame, or an empty range at its end.
pub(crate) fn data_lines(frame: &[u8]) -> Range<usize> {
    let mut lines = frame.len()..frame.len();
    let mut at = 0;
    for line in frame.split_inclusive(|b| *b == b'\n') {
        let start = at;
        at += line.len();
        if line.starts_with(b"data: ") {
            lines = lines.start.min(start)..at;
        }
    }
    lines
}

/// A placeholder in a line.
struct Placeholder {
    name: String,
    is_text: bool,
    /// Whether the placeholder is complete and not part of a longer number.
    is_whole: bool,
    start: usize,
    end: usize,
}

impl Placeholder {
    /// Return the placeholder that is the whole text.
    fn from_whole(text: &str, prefixes: &Prefixes) -> Option<Self> {
        // Almost no text is a placeholder, so most texts only pay for the comparison of a prefix.
        if !text.starts_with(&prefixes.text) && !text.starts_with(&prefixes.digits) {
            return None;
        }
        let found = Self::find(text.as_bytes(), 0, prefixes)?;
        (found.is_whole && found.start == 0 && found.end == text.len()).then_some(found)
    }

    /// Return the first placeholder from `at` on.
    fn find(line: &[u8], at: usize, prefixes: &Prefixes) -> Option<Self> {
        let find = |prefix: &str| memmem::find(&line[at..], prefix.as_bytes()).map(|i| at + i);
        let text = find(&prefixes.text);
        let digits = find(&prefixes.digits);
        let is_text = match (text, digits) {
            (Some(text), Some(digits)) => text < digits,
            (text, _) => text.is_some(),
        };
        let start = if is_text { text? } else { digits? };
        let (radix, width, prefix) = if is_text {
            (16, 2, &prefixes.text)
        } else {
            (10, 3, &prefixes.digits)
        };
        let name_start = start + prefix.len();
        let name: Vec<u8> = line[name_start..]
            .chunks_exact(width)
            .map_while(|code| u8::from_str_radix(str::from_utf8(code).ok()?, radix).ok())
            .collect();
        let name = String::from_utf8(name).unwrap_or_default();
        let expected = if is_text {
            prefixes.text_of(&name)
        } else {
            prefixes.digits_of(&name)
        };
        let end = start + expected.len();
        let is_number = |index: usize| {
            let byte = line.get(index);
            byte.is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'+' | b'-'))
        };
        Some(Self {
            is_whole: !name.is_empty()
                && line[start..].starts_with(expected.as_bytes())
                && (is_text || !(start > 0 && is_number(start - 1) || is_number(end))),
            name,
            is_text,
            start,
            end,
        })
    }

    /// Return the place, and the start and end of the part of the line to replace.
    fn place(&self, line: &[u8], data_is_slot: bool) -> Result<(Place, usize, usize), String> {
        if !self.is_whole {
            return Err(self.not_whole());
        }
        let (field, place) = if line.starts_with(b"data: ") {
            if !data_is_slot {
                return self.place_in_json(line);
            }
            ("data: ", Place::Data)
        } else if line.starts_with(b"event: ") {
            ("event: ", Place::Event)
        } else if line.starts_with(b"id: ") {
            ("id: ", Place::Id)
        } else {
            let name = &self.name;
            return Err(format!(
                "slot '{name}' can only be in 'data', 'event' or 'id'"
            ));
        };
        // As data, the placeholder is a JSON string.
        let quote = usize::from(place == Place::Data);
        if self.start != field.len() + quote || line.get(self.end + quote) != Some(&b'\n') {
            return Err(self.not_whole());
        }
        Ok((place, 0, line.len()))
    }

    fn place_in_json(&self, line: &[u8]) -> Result<(Place, usize, usize), String> {
        let is_at = |index: usize, byte: u8| line.get(index) == Some(&byte);
        let quoted = is_inside_string(&line[..self.start]);
        if !quoted && !self.is_text {
            return Ok((Place::Json, self.start, self.end));
        }
        let stands_alone = is_at(self.start - 1, b'"')
            && !is_inside_string(&line[..self.start - 1])
            && is_at(self.end, b'"');
        if !stands_alone || !self.is_text {
            return Err(self.not_whole());
        }
        if line[self.end + 1..].trim_ascii_start().starts_with(b":") {
            return Err(format!(
                "slot '{}' is a key, but a slot must be a value",
                self.name
            ));
        }
        Ok((Place::Json, self.start - 1, self.end + 1))
    }

    fn not_whole(&self) -> String {
        format!(
            "slot '{}' is part of a longer string, but a slot must be a whole value",
            self.name
        )
    }
}

/// Return whether `json` ends inside a string.
fn is_inside_string(json: &[u8]) -> bool {
    let mut inside = false;
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => inside = !inside,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
    inside
}
