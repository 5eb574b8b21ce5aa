//! Slots: values that are found again in an encoded frame, whatever validated, copied and
//! serialized them on the way.
//!
//! A slot's text, or number, begins with one that is drawn at random for every process: no data
//! contains it by chance.

use std::fmt::Write;
use std::ops::Range;

use memchr::memmem;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyInt, PyString};

use crate::output::Output;

/// What every slot of this process begins with.
pub(crate) struct Marks {
    text: String,
    /// Decimal digits, the first of them not zero.
    digits: String,
}

impl Marks {
    pub(crate) fn of(py: Python<'_>) -> PyResult<&Self> {
        static MARKS: PyOnceLock<Marks> = PyOnceLock::new();
        MARKS.get_or_try_init(py, || {
            let secrets = py.import("secrets")?;
            let random: u128 = secrets.call_method1("randbits", (127,))?.extract()?;
            Ok(Self {
                text: format!("slot-{random:032x}-"),
                digits: format!("1{random:039}"),
            })
        })
    }

    pub(crate) fn is_text_of_slot(&self, text: &str) -> bool {
        text.starts_with(&self.text)
    }

    fn text_of(&self, name: &str) -> String {
        let mut text = self.text.clone();
        for byte in name.bytes() {
            let _ = write!(text, "{byte:02x}"); // cannot fail: it is a String
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

/// The text that stands for a slot until it is filled.
///
/// # Errors
///
/// The system has no source of randomness.
#[pyfunction]
#[pyo3(signature = (name, /))]
pub(crate) fn slot_text(py: Python<'_>, name: &str) -> PyResult<String> {
    Ok(Marks::of(py)?.text_of(name))
}

/// The digits of the number that stands for a slot.
///
/// # Errors
///
/// As [`slot_text`].
#[pyfunction]
#[pyo3(signature = (name, /))]
pub(crate) fn slot_digits(py: Python<'_>, name: &str) -> PyResult<String> {
    Ok(Marks::of(py)?.digits_of(name))
}

/// The name of the slot that a value is, if it is one: its text, or its number.
///
/// # Errors
///
/// As [`slot_text`].
#[pyfunction]
#[pyo3(signature = (value, /))]
pub(crate) fn slot_name(value: &Bound<'_, PyAny>) -> PyResult<Option<String>> {
    let marks = Marks::of(value.py())?;
    if let Ok(text) = value.cast::<PyString>() {
        let text = text.to_str().unwrap_or_default();
        return Ok(Mark::whole(text, marks)
            .filter(|mark| mark.is_text)
            .map(|mark| mark.name));
    }
    match value.cast::<PyInt>() {
        Ok(number) if number.extract::<i64>().is_err() => {
            // A number of more digits than Python prints is none.
            let digits = number
                .str()
                .map(|digits| digits.to_string())
                .unwrap_or_default();
            Ok(Mark::whole(&digits, marks)
                .filter(|mark| !mark.is_text)
                .map(|mark| mark.name))
        }
        _ => Ok(None),
    }
}

/// What a slot stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A value inside the JSON of `data`.
    Json,
    /// The whole of a field, its name included.
    Data,
    Event,
    Id,
}

/// A slot that was found.
pub(crate) struct Found {
    pub(crate) name: String,
    pub(crate) place: Place,
    /// Where in the rest of the frame it stood.
    pub(crate) at: usize,
}

/// Take a frame apart: return its slots in order, and append everything else to `text`.
///
/// # Errors
///
/// A slot that does not stand for a whole value.
pub(crate) fn find(
    frame: &[u8],
    marks: &Marks,
    data_is_slot: bool,
    text: &mut Output,
) -> Result<Vec<Found>, String> {
    let mut found = Vec::new();
    for line in frame.split_inclusive(|b| *b == b'\n') {
        let mut at = 0;
        while let Some(mark) = Mark::find(line, at, marks) {
            let (place, from, to) = mark.place(line, data_is_slot)?;
            text.extend_from_slice(&line[at..from]);
            found.push(Found {
                name: mark.name,
                place,
                at: text.len(),
            });
            at = to;
        }
        text.extend_from_slice(&line[at..]);
    }
    Ok(found)
}

/// Where in a frame the lines of `data` are; at its end where there are none.
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

/// A slot's text or number in a line.
struct Mark {
    name: String,
    is_text: bool,
    /// Whether it is just as it was made, not cut short or part of a longer number.
    is_whole: bool,
    start: usize,
    end: usize,
}

impl Mark {
    /// One that is all of a text.
    fn whole(text: &str, marks: &Marks) -> Option<Self> {
        // Nearly no text is one, and most are longer than their beginning.
        if !text.starts_with(&marks.text) && !text.starts_with(&marks.digits) {
            return None;
        }
        let mark = Self::find(text.as_bytes(), 0, marks)?;
        (mark.is_whole && mark.start == 0 && mark.end == text.len()).then_some(mark)
    }

    /// The first one from `at` on.
    fn find(line: &[u8], at: usize, marks: &Marks) -> Option<Self> {
        let find = |mark: &str| memmem::find(&line[at..], mark.as_bytes()).map(|i| at + i);
        let text = find(&marks.text);
        let digits = find(&marks.digits);
        let is_text = match (text, digits) {
            (Some(text), Some(digits)) => text < digits,
            (text, _) => text.is_some(),
        };
        let start = if is_text { text? } else { digits? };
        let (radix, width, mark) = if is_text {
            (16, 2, &marks.text)
        } else {
            (10, 3, &marks.digits)
        };
        let body = start + mark.len();
        let name: Vec<u8> = line[body..]
            .chunks_exact(width)
            .map_while(|code| u8::from_str_radix(str::from_utf8(code).ok()?, radix).ok())
            .collect();
        let name = String::from_utf8(name).unwrap_or_default();
        let made = if is_text {
            marks.text_of(&name)
        } else {
            marks.digits_of(&name)
        };
        let end = start + made.len();
        let is_number = |index: usize| {
            let byte = line.get(index);
            byte.is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'+' | b'-'))
        };
        Some(Self {
            is_whole: !name.is_empty()
                && line[start..].starts_with(made.as_bytes())
                && (is_text || !(start > 0 && is_number(start - 1) || is_number(end))),
            name,
            is_text,
            start,
            end,
        })
    }

    /// What it stands for, and which part of the line is to be replaced.
    fn place(&self, line: &[u8], data_is_slot: bool) -> Result<(Place, usize, usize), String> {
        if !self.is_whole {
            return Err(self.part_of_text());
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
                "slot '{name}' stands neither in 'data' nor in 'event' or 'id'"
            ));
        };
        let quote = usize::from(place == Place::Data);
        if self.start != field.len() + quote || line.get(self.end + quote) != Some(&b'\n') {
            return Err(self.part_of_text());
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
            return Err(self.part_of_text());
        }
        if line[self.end + 1..].trim_ascii_start().starts_with(b":") {
            return Err(format!(
                "slot '{}' is a key; it can only be a value",
                self.name
            ));
        }
        Ok((Place::Json, self.start - 1, self.end + 1))
    }

    fn part_of_text(&self) -> String {
        format!(
            "slot '{}' is part of a longer text; it can only be a whole value",
            self.name
        )
    }
}

/// Whether a JSON string has begun in `json` and not ended.
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
