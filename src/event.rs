//! The fields of one event: read from Python, checked, written as a frame.
//!
//! Where a field is not exactly of the expected type or breaks a rule, FastAPI's own
//! `ServerSentEvent` decides: it coerces (`retry="5"`) or raises pydantic's error.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple, PyType};

use crate::bytes::{self, LARGE, Large};
use crate::items::Items;
use crate::output::Output;
use crate::scalar::Spelling;
use crate::wire::{self, FieldError, Frame};
use crate::{class, fallback, json, model};

impl From<FieldError> for PyErr {
    fn from(error: FieldError) -> Self {
        PyValueError::new_err(error.to_string())
    }
}

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

/// Why fields cannot be written as they are.
enum Refusal {
    /// A type that pydantic may still coerce.
    Type(&'static str),
    Field(FieldError),
    /// A lone surrogate: pydantic lets it pass, but it cannot be sent.
    Unicode(PyErr),
    /// `data` and `raw_data` on one event.
    BothData,
    Raised(PyErr),
}

impl From<FieldError> for Refusal {
    fn from(error: FieldError) -> Self {
        Self::Field(error)
    }
}

impl From<PyErr> for Refusal {
    fn from(error: PyErr) -> Self {
        Self::Raised(error)
    }
}

impl From<Refusal> for PyErr {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Type(field) => {
                PyTypeError::new_err(format!("SSE '{field}' has an unsupported type"))
            }
            Refusal::Field(error) => error.into(),
            Refusal::BothData => PyValueError::new_err("Cannot set both 'data' and 'raw_data'"),
            Refusal::Unicode(error) | Refusal::Raised(error) => error,
        }
    }
}

pub(crate) enum Retry<'a> {
    Small(u64),
    Digits(Bound<'a, PyString>),
}

/// Fields that are known to be writable; `data` can still fail to encode.
pub(crate) struct Checked<'a, 'py> {
    pub(crate) comment: Option<&'a str>,
    pub(crate) event: Option<&'a str>,
    pub(crate) raw_data: Option<&'a str>,
    pub(crate) id: Option<&'a str>,
    pub(crate) retry: Option<Retry<'py>>,
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
    /// Reads the attributes of an event.
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

    /// As [`Self::of_event`], with what goes on a single line formatted, and a kind of `str` made
    /// one.
    fn of_subclass(event: &Bound<'py, PyAny>) -> PyResult<Self> {
        let mut fields = Self::of_event(event)?;
        for field in [&mut fields.event, &mut fields.id, &mut fields.retry] {
            if let Some(value) = field
                && !value.is_exact_instance_of::<PyString>()
            {
                let format = intern!(value.py(), "__format__");
                *field = Some(value.call_method1(format, ("",))?);
            }
        }
        for field in [&mut fields.raw_data, &mut fields.comment] {
            if let Some(value) = field
                && let Ok(text) = value.cast::<PyString>()
                && !text.is_exact_instance_of::<PyString>()
            {
                *field = Some(PyString::new(text.py(), text.to_str()?).into_any());
            }
        }
        Ok(Self {
            of_subclass: true,
            ..fields
        })
    }

    /// Reads keyword arguments or an instance's `__dict__`. `None` where there is another key.
    pub(crate) fn of_dict(dict: &Bound<'py, PyDict>) -> PyResult<Option<Self>> {
        let names = field_names(dict.py());
        let mut found = [const { None }; 6];
        for item in Items::of(dict) {
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

    fn check(&self) -> Result<Checked<'_, 'py>, Refusal> {
        let event = text("event", self.event.as_ref())?;
        if let Some(name) = event {
            wire::check_event(name)?;
        }
        let id = text("id", self.id.as_ref())?;
        if let Some(id) = id {
            wire::check_id(id)?;
        }
        Ok(Checked {
            comment: text("comment", self.comment.as_ref())?,
            event,
            raw_data: text("raw_data", self.raw_data.as_ref())?,
            id,
            retry: self
                .retry
                .as_ref()
                .map(|value| milliseconds(value, self.of_subclass))
                .transpose()?,
        })
    }

    /// As [`Self::check`], for an event that is being made.
    fn check_new(&self) -> Result<Checked<'_, 'py>, Refusal> {
        if self.data.is_some() && self.raw_data.is_some() {
            return Err(Refusal::BothData);
        }
        self.check()
    }

    /// Whether a new event could have these fields just as they are.
    pub(crate) fn is_valid(&self) -> bool {
        self.check_new().is_ok()
    }

    /// Appends the frame of an event that is being made: nothing but valid fields.
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
            Err(refusal) => self.validated(py, refusal)?.write_as_is(py, json, out),
        }
    }

    /// Appends the frame of an event that exists. Fields may have been assigned to since it was
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
            Err(refusal) if self.of_subclass => Err(refusal.into()),
            Err(refusal) => self.validated(py, refusal)?.write_as_is(py, json, out),
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
    fn validated(&self, py: Python<'py>, refusal: Refusal) -> PyResult<Self> {
        if let Refusal::Raised(error) = refusal {
            return Err(error);
        }
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
        let mut frame = Frame::new(out);
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
        match self.retry {
            Some(Retry::Small(number)) => frame.retry(number),
            Some(Retry::Digits(digits)) => frame.retry_digits(digits.to_str()?)?,
            None => {}
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

/// What a model has made of itself.
enum Dump<'py> {
    Json(Bound<'py, PyBytes>),
    Text(Bound<'py, PyString>),
}

impl Dump<'_> {
    fn as_bytes(&self) -> PyResult<&[u8]> {
        match self {
            Self::Json(json) => Ok(json.as_bytes()),
            Self::Text(text) => text.to_str().map(str::as_bytes),
        }
    }

    fn write(&self, frame: &mut Frame<'_>) -> PyResult<()> {
        match self {
            Self::Json(json) => frame.json(json.as_bytes()),
            Self::Text(text) => frame.data(text.to_str()?.as_bytes()),
        }
        Ok(())
    }
}

/// Writes what `data=` carries. A model that has `model_dump_json` writes itself, by field name;
/// everything else is plain JSON.
///
/// # Errors
///
/// What encoding it raises.
pub(crate) fn write_data(
    data: &Bound<'_, PyAny>,
    json: Spelling,
    frame: &mut Frame<'_>,
) -> PyResult<()> {
    match dumped(data)? {
        Some(dump) => dump.write(frame),
        None => frame.data_line(|out| json::write(data, json, out)),
    }
}

/// What `data` makes of itself, if it does.
fn dumped<'py>(data: &Bound<'py, PyAny>) -> PyResult<Option<Dump<'py>>> {
    if is_plain(data) {
        return Ok(None);
    }
    let Some(dump) = json_method(data)? else {
        return Ok(None);
    };
    if let Some(json) = model::dumped_json(&dump)? {
        return Ok(Some(Dump::Json(json)));
    }
    match dump.call0()?.cast_into::<PyString>() {
        Ok(text) => Ok(Some(Dump::Text(text))),
        Err(error) => Err(PyTypeError::new_err(format!(
            "model_dump_json() must return a str, not {}",
            error.into_inner().get_type().name()?
        ))),
    }
}

/// Whether `data` writes itself.
pub(crate) fn is_model(data: &Bound<'_, PyAny>) -> PyResult<bool> {
    Ok(!is_plain(data) && json_method(data)?.is_some())
}

fn json_method<'py>(data: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    data.getattr_opt(intern!(data.py(), "model_dump_json"))
}

/// Whether `value` is of a builtin type that [`json`] writes without help.
pub(crate) fn is_plain(value: &Bound<'_, PyAny>) -> bool {
    value.is_exact_instance_of::<PyDict>()
        || value.is_exact_instance_of::<PyString>()
        || value.is_exact_instance_of::<PyList>()
        || value.is_exact_instance_of::<PyInt>()
        || value.is_exact_instance_of::<PyFloat>()
        || value.is_exact_instance_of::<PyBool>()
        || value.is_exact_instance_of::<PyTuple>()
        || value.is_none()
}

fn some(value: Bound<'_, PyAny>) -> Option<Bound<'_, PyAny>> {
    (!value.is_none()).then_some(value)
}

fn text<'a>(
    name: &'static str,
    value: Option<&'a Bound<'_, PyAny>>,
) -> Result<Option<&'a str>, Refusal> {
    let Some(value) = value else { return Ok(None) };
    let text = value
        .cast_exact::<PyString>()
        .map_err(|_| Refusal::Type(name))?;
    text.to_str().map(Some).map_err(Refusal::Unicode)
}

fn milliseconds<'py>(value: &Bound<'py, PyAny>, of_subclass: bool) -> Result<Retry<'py>, Refusal> {
    if of_subclass && let Ok(digits) = value.cast_exact::<PyString>() {
        wire::check_retry(digits.to_str().map_err(Refusal::Unicode)?)?;
        return Ok(Retry::Digits(digits.clone()));
    }
    let number = value
        .cast_exact::<PyInt>()
        .map_err(|_| Refusal::Type("retry"))?;
    if let Ok(small) = number.extract::<i64>() {
        return u64::try_from(small)
            .map(Retry::Small)
            .map_err(|_| Refusal::Field(FieldError::RetryNegative));
    }
    if number.lt(0)? {
        return Err(FieldError::RetryNegative.into());
    }
    Ok(Retry::Digits(number.str()?))
}

/// The classes whose instances are events.
pub(crate) struct EventTypes {
    /// `fastapi.sse.ServerSentEvent`.
    base: Py<PyType>,
    /// `fastapi_sse_fast.ServerSentEvent`.
    ours: Py<PyType>,
}

impl EventTypes {
    pub(crate) fn of(py: Python<'_>) -> PyResult<&Self> {
        static TYPES: PyOnceLock<EventTypes> = PyOnceLock::new();
        TYPES.get_or_try_init(py, || {
            let class = |module: &str| -> PyResult<Py<PyType>> {
                Ok(py
                    .import(module)?
                    .getattr("ServerSentEvent")?
                    .cast_into::<PyType>()?
                    .unbind())
            };
            Ok(Self {
                base: class("fastapi.sse")?,
                ours: class("fastapi_sse_fast.event")?,
            })
        })
    }

    /// The fields of `item` if it is an event: FastAPI's, ours or a subclass of either. Their
    /// own `isinstance` runs Python code for every item, the MRO tells the same.
    pub(crate) fn fields<'py>(&self, item: &Bound<'py, PyAny>) -> PyResult<Option<Fields<'py>>> {
        let py = item.py();
        let class = item.get_type();
        if class.is(&self.ours) || class.is(&self.base) {
            let attributes = item.getattr(intern!(py, "__dict__"))?;
            if let Some(fields) = Fields::of_dict(attributes.cast::<PyDict>()?)? {
                return Ok(Some(fields));
            }
            return Fields::of_event(item).map(Some);
        }
        if self.is_event(item) {
            return Fields::of_subclass(item).map(Some);
        }
        Ok(None)
    }

    /// Whether `item` has such fields, which are not read.
    pub(crate) fn is_event(&self, item: &Bound<'_, PyAny>) -> bool {
        class::has_base(&item.get_type(), &self.base)
    }
}
