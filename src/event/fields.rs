//! The fields of one event: read from Python, checked, written as a frame.
//!
//! Where a field is not exactly of the expected type or breaks a rule, FastAPI's own
//! `ServerSentEvent` decides: it coerces (`retry="5"`) or raises pydantic's error.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyInt, PyString};

use super::data::dumped;
use crate::bytes::{self, LARGE, Large};
use crate::dict_items::DictItems;
use crate::fallback;
use crate::json::{self, Spelling};
use crate::output::Output;
use crate::wire::{self, FrameWriter};

/// The six fields as Python holds them; `None` where a field is absent.
pub(crate) struct Fields<'py> {
    pub(crate) data: Option<Bound<'py, PyAny>>,
    pub(crate) raw_data: Option<Bound<'py, PyAny>>,
    pub(crate) event: Option<Bound<'py, PyAny>>,
    pub(crate) id: Option<Bound<'py, PyAny>>,
    pub(crate) retry: Option<Bound<'py, PyAny>>,
    pub(crate) comment: Option<Bound<'py, PyAny>>,
    /// Whether they belong to a user's subclass, whose fields may have other types: FastAPI
    /// formats whatever they are.
    pub(crate) of_subclass: bool,
}

/// Fields that are known to be writable; `data` can still fail to encode.
pub(crate) struct Checked<'a, 'py> {
    pub(crate) comment: Option<&'a str>,
    pub(crate) event: Option<&'a str>,
    pub(crate) raw_data: Option<&'a str>,
    pub(crate) id: Option<&'a str>,
    pub(crate) retry: Option<Bound<'py, PyString>>,
}

/// Their names in Python's one copy of each, so that comparing names is comparing pointers.
pub(crate) fn field_names(py: Python<'_>) -> [&Bound<'_, PyString>; 6] {
    [
        intern!(py, "data"),
        intern!(py, "raw_data"),
        intern!(py, "event"),
        intern!(py, "id"),
        intern!(py, "retry"),
        intern!(py, "comment"),
    ]
}

impl<'py> Fields<'py> {
    /// Read the attributes of an event.
    ///
    /// # Errors
    ///
    /// What a property of a user's subclass raises.
    pub(crate) fn of_event(event: &Bound<'py, PyAny>) -> PyResult<Self> {
        let py = event.py();
        let read = |name: &Bound<'py, PyString>| event.getattr(name).map(some);
        Ok(Self {
            data: read(intern!(py, "data"))?,
            raw_data: read(intern!(py, "raw_data"))?,
            event: read(intern!(py, "event"))?,
            id: read(intern!(py, "id"))?,
            retry: read(intern!(py, "retry"))?,
            comment: read(intern!(py, "comment"))?,
            of_subclass: false,
        })
    }

    /// As [`Self::of_event`], with what goes on a single line formatted.
    pub(super) fn of_subclass(event: &Bound<'py, PyAny>) -> PyResult<Self> {
        let mut fields = Self::of_event(event)?;
        for field in [&mut fields.event, &mut fields.id, &mut fields.retry] {
            if let Some(value) = field
                && !value.is_exact_instance_of::<PyString>()
            {
                let format = intern!(value.py(), "__format__");
                *field = Some(value.call_method1(format, ("",))?);
            }
        }
        Ok(Self {
            of_subclass: true,
            ..fields
        })
    }

    /// Read keyword arguments or an instance's `__dict__`. `None` where there is another key.
    pub(crate) fn of_dict(dict: &Bound<'py, PyDict>) -> PyResult<Option<Self>> {
        let names = field_names(dict.py());
        let mut found = [const { None }; 6];
        for item in DictItems::of(dict) {
            let (key, value) = item?;
            let Some(index) = names.iter().position(|name| key.is(*name)) else {
                return Ok(None);
            };
            found[index] = some(value);
        }
        let [data, raw_data, event, id, retry, comment] = found;
        let of_subclass = false;
        Ok(Some(Self {
            data,
            raw_data,
            event,
            id,
            retry,
            comment,
            of_subclass,
        }))
    }

    /// The fields as they are written, where each is exactly of its type and keeps its rule.
    ///
    /// # Errors
    ///
    /// What to raise where pydantic does not object: it may coerce, and has its own words.
    fn check(&self) -> PyResult<Checked<'_, 'py>> {
        let event = text("event", self.event.as_ref(), self.of_subclass)?;
        if let Some(name) = event {
            wire::check_event(name)?;
        }
        let id = text("id", self.id.as_ref(), self.of_subclass)?;
        if let Some(id) = id {
            wire::check_id(id)?;
        }
        Ok(Checked {
            comment: text("comment", self.comment.as_ref(), self.of_subclass)?,
            event,
            raw_data: text("raw_data", self.raw_data.as_ref(), self.of_subclass)?,
            id,
            retry: self
                .retry
                .as_ref()
                .map(|value| milliseconds(value, self.of_subclass))
                .transpose()?,
        })
    }

    /// As [`Self::check`], for an event that is being made.
    fn check_new(&self) -> PyResult<Checked<'_, 'py>> {
        if self.data.is_some() && self.raw_data.is_some() {
            let message = "Cannot set both 'data' and 'raw_data'";
            return Err(PyValueError::new_err(message));
        }
        self.check()
    }

    /// Whether a new event could have these fields just as they are.
    pub(crate) fn is_valid(&self) -> bool {
        self.check_new().is_ok()
    }

    /// Append the frame of an event that is being made: nothing but valid fields.
    ///
    /// # Errors
    ///
    /// pydantic's `ValidationError`, or what encoding `data` raises. Truncate `out` then.
    pub(crate) fn write_new(
        &self,
        py: Python<'py>,
        json: Spelling,
        out: &mut Output,
    ) -> PyResult<Large<'py>> {
        match self.check_new() {
            Ok(checked) => checked.write(py, self.data.as_ref(), json, out),
            Err(_) => self.validated(py)?.write_as_is(py, json, out),
        }
    }

    /// Append the frame of an event that exists. Fields may have been assigned to since it was
    /// made, so all are checked; that `raw_data` wins over `data` is FastAPI's way.
    ///
    /// # Errors
    ///
    /// As [`Self::write_new`].
    pub(crate) fn write(
        &self,
        py: Python<'py>,
        json: Spelling,
        out: &mut Output,
    ) -> PyResult<Large<'py>> {
        match self.check() {
            Ok(checked) => checked.write(py, self.data.as_ref(), json, out),
            Err(error) if self.of_subclass => Err(error),
            Err(_) => self.validated(py)?.write_as_is(py, json, out),
        }
    }

    fn write_as_is(
        &self,
        py: Python<'py>,
        json: Spelling,
        out: &mut Output,
    ) -> PyResult<Large<'py>> {
        self.check()?.write(py, self.data.as_ref(), json, out)
    }

    /// The fields as FastAPI's event has them after validation.
    fn validated(&self, py: Python<'py>) -> PyResult<Self> {
        let keywords = PyDict::new(py);
        let values = [
            &self.data,
            &self.raw_data,
            &self.event,
            &self.id,
            &self.retry,
            &self.comment,
        ];
        for (name, value) in field_names(py).into_iter().zip(values) {
            if let Some(value) = value {
                keywords.set_item(name, value)?;
            }
        }
        Self::of_event(&fallback::validated_event(&keywords)?)
    }
}

impl<'py> Checked<'_, 'py> {
    /// Append the frame to `out`, or return it if it is large: then it is written straight into
    /// the bytes that are sent.
    ///
    /// # Errors
    ///
    /// What encoding `data` raises, or a field that is not writable after all. Truncate `out` then.
    pub(crate) fn write(
        self,
        py: Python<'py>,
        data: Option<&Bound<'py, PyAny>>,
        json: Spelling,
        out: &mut Output,
    ) -> PyResult<Large<'py>> {
        let start = out.len();
        let mut frame = FrameWriter::new(out);
        if let Some(text) = self.comment {
            frame.comment(text);
        }
        if let Some(name) = self.event {
            frame.event(name)?;
        }
        let before = frame.end_of_fields();
        let dump;
        let mut large = None;
        if let Some(text) = self.raw_data {
            if text.len() < LARGE {
                frame.data(text.as_bytes());
            } else {
                large = Some(text.as_bytes());
            }
        } else if let Some(data) = data {
            dump = dumped(data)?;
            match &dump {
                Some(dump) if dump.as_bytes()?.len() < LARGE => dump.write(&mut frame)?,
                Some(dump) => large = Some(dump.as_bytes()?),
                None => frame.data_line(|out| json::write(data, json, out))?,
            }
        }
        if let Some(id) = self.id {
            frame.id(id)?;
        }
        if let Some(digits) = self.retry {
            frame.retry(digits.to_str()?)?;
        }
        frame.end();
        let Some(text) = large else {
            return bytes::split_off_large(py, out, start);
        };
        let frame = bytes::around(py, &out[start..before], text, &out[before..])?;
        out.truncate(start);
        Ok(Some(frame))
    }
}

fn some(value: Bound<'_, PyAny>) -> Option<Bound<'_, PyAny>> {
    (!value.is_none()).then_some(value)
}

/// A text as it is; a kind of `str` only where pydantic does not have a say.
fn text<'a>(
    name: &str,
    value: Option<&'a Bound<'_, PyAny>>,
    of_subclass: bool,
) -> PyResult<Option<&'a str>> {
    let Some(value) = value else { return Ok(None) };
    if let Ok(text) = value.cast_exact::<PyString>() {
        return text.to_str().map(Some);
    }
    match value.cast::<PyString>() {
        Ok(text) if of_subclass => text.to_str().map(Some),
        _ => Err(unsupported(name)),
    }
}

/// The digits of a reconnection time, however large it is.
fn milliseconds<'py>(
    value: &Bound<'py, PyAny>,
    of_subclass: bool,
) -> PyResult<Bound<'py, PyString>> {
    let digits = match value.cast_exact::<PyString>() {
        Ok(digits) if of_subclass => digits.clone(),
        _ => value
            .cast_exact::<PyInt>()
            .map_err(|_| unsupported("retry"))?
            .str()?,
    };
    wire::check_retry(digits.to_str()?)?;
    Ok(digits)
}

fn unsupported(field: &str) -> PyErr {
    PyTypeError::new_err(format!("SSE '{field}' has an unsupported type"))
}
