//! The fields of one event: reading them from Python, checking them, and writing the frame.
//!
//! A field that is not exactly of the expected type, or that breaks a rule, goes to FastAPI's own
//! `ServerSentEvent`. That coerces it (`retry="5"`) or raises pydantic's error.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyInt, PyString};

use super::data::dump_model;
use crate::bytes::{self, Large};
use crate::dict_items::DictItems;
use crate::fallback;
use crate::json::{self, Spelling};
use crate::output::Output;
use crate::wire::{self, FrameWriter};

/// The six fields as Python objects. An absent field is `None`.
pub(crate) struct Fields<'py> {
    pub(crate) data: Option<Bound<'py, PyAny>>,
    pub(crate) raw_data: Option<Bound<'py, PyAny>>,
    pub(crate) event: Option<Bound<'py, PyAny>>,
    pub(crate) id: Option<Bound<'py, PyAny>>,
    pub(crate) retry: Option<Bound<'py, PyAny>>,
    pub(crate) comment: Option<Bound<'py, PyAny>>,
    /// Whether the event is of a subclass. Its fields may have other types, which FastAPI formats
    /// as they are.
    pub(crate) of_subclass: bool,
}

/// The fields that are checked before anything is written. Encoding `data` can still fail.
pub(crate) struct Checked<'a, 'py> {
    pub(crate) comment: Option<&'a str>,
    pub(crate) event: Option<&'a str>,
    pub(crate) raw_data: Option<&'a str>,
    pub(crate) id: Option<&'a str>,
    pub(crate) retry: Option<Bound<'py, PyString>>,
}

/// Return the names of the fields as interned strings, which can be compared by identity.
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
    /// Whatever a property of a subclass raises.
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

    /// As [`Self::of_event`], for an instance of a subclass. `event`, `id` and `retry` are
    /// formatted with `format()`, because FastAPI writes them with f-strings.
    ///
    /// # Errors
    ///
    /// Whatever a property or a `__format__` raises.
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

    /// Read keyword arguments or the `__dict__` of an instance. Return `None` if there is any other
    /// key.
    ///
    /// # Errors
    ///
    /// `RuntimeError` if other code changes the dict at the same time.
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

    /// Return the fields if each is exactly of its type and valid.
    ///
    /// # Errors
    ///
    /// The error to raise if pydantic accepts the fields. Callers ask pydantic first, because it
    /// can coerce a field and has its own messages.
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

    /// As [`Self::check`], for an event that is being created.
    fn check_new(&self) -> PyResult<Checked<'_, 'py>> {
        if self.data.is_some() && self.raw_data.is_some() {
            let message = "Cannot set both 'data' and 'raw_data'";
            return Err(PyValueError::new_err(message));
        }
        self.check()
    }

    /// Return whether a new event can have these fields without coercion.
    pub(crate) fn is_valid(&self) -> bool {
        self.check_new().is_ok()
    }

    /// Append the frame of an event that is being created, or return it if it is large.
    ///
    /// # Errors
    ///
    /// pydantic's `ValidationError`, or whatever encoding `data` raises. The caller truncates
    /// `out`.
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

    /// Append the frame of an existing event, or return it if it is large. All fields are checked
    /// again, because the application may have assigned to them. If both `raw_data` and `data` are
    /// set now, `raw_data` is sent, as in FastAPI.
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

    /// Return the fields after validation by FastAPI's event.
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
    /// Append the frame, or return it if it is large. The lines are `: <comment>`,
    /// `event: <event>`, `data: <raw_data, or the JSON of data>`, `id: <id>`, `retry: <retry>` and
    /// a blank line. A large line of data is written straight into the `bytes` object that is sent.
    ///
    /// # Errors
    ///
    /// Whatever encoding `data` raises, or `ValueError` for a field that was not checked. The
    /// caller truncates `out`.
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
        let json_of_model;
        let mut large = None;
        if let Some(text) = self.raw_data {
            large = bytes::large_lines(text.as_bytes());
            if large.is_none() {
                frame.data(text.as_bytes());
            }
        } else if let Some(data) = data {
            json_of_model = dump_model(data)?;
            match &json_of_model {
                Some(text) => {
                    large = bytes::large_lines(text.as_bytes()?);
                    if large.is_none() {
                        text.write(&mut frame)?;
                    }
                }
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
        let Some(lines) = large else {
            return bytes::split_off_large(py, out, start);
        };
        let frame = bytes::surround(py, &out[start..before], &lines, &out[before..])?;
        out.truncate(start);
        Ok(Some(frame))
    }
}

fn some(value: Bound<'_, PyAny>) -> Option<Bound<'_, PyAny>> {
    (!value.is_none()).then_some(value)
}

/// Return the text of a field. A subclass of `str` counts only for an event of a subclass, whose
/// fields pydantic does not validate again.
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

/// Return the digits of a reconnection time of any size.
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
