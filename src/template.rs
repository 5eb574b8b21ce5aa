//! `EventTemplate`: a frame that is encoded once, with slots for what differs between events.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{IntoPyDict, PyBytes, PyDict, PyString, PyTuple};

use crate::bytes;
use crate::encoded::EncodedEvent;
use crate::event::{EventTypes, Fields, is_model, write_data};
use crate::json::{self, Spelling, write_string};
use crate::output::Output;
use crate::slot::{Marks, Place, find};
use crate::wire::FrameWriter;

/// A frame that is encoded once, with slots for what differs from event to event. Calling it with
/// their values makes an `EncodedEvent`.
#[pyclass(frozen, module = "fastapi_sse_fast._core")]
pub(crate) struct EventTemplate {
    slots: Vec<Slot>,
    /// The frame without them.
    text: Vec<u8>,
    values: Values,
}

struct Slot {
    name: Py<PyString>,
    place: Place,
    /// Where in the text it stands.
    at: usize,
}

/// Who would have written the value of a slot, had it been there from the start.
#[derive(Clone, Copy)]
enum Values {
    OfPlainData(Spelling),
    OfModel,
}

#[pymethods]
impl EventTemplate {
    #[new]
    #[pyo3(
        signature = (
            data, *, event=None, id=None, retry=None, comment=None, json=Spelling::Fastapi
        ),
        text_signature = "(data, *, event=None, id=None, retry=None, comment=None, \
                          json='fastapi')"
    )]
    fn new<'py>(
        py: Python<'py>,
        data: Bound<'py, PyAny>,
        event: Option<Bound<'py, PyAny>>,
        id: Option<Bound<'py, PyAny>>,
        retry: Option<Bound<'py, PyAny>>,
        comment: Option<Bound<'py, PyAny>>,
        json: Spelling,
    ) -> PyResult<Self> {
        if EventTypes::of(py)?.is_event(&data)? || data.is_instance_of::<EncodedEvent>() {
            return Err(PyTypeError::new_err(
                "an EventTemplate is made of the data of an event: give it that, and event, id, \
                 retry and comment beside it",
            ));
        }
        let marks = Marks::of(py)?;
        let data_is_slot = match data.cast::<PyString>() {
            Ok(text) => text.to_str().is_ok_and(|text| marks.is_text_of_slot(text)),
            Err(_) => false,
        };
        let values = if is_model(&data)? {
            Values::OfModel
        } else {
            Values::OfPlainData(json)
        };
        let fields = Fields {
            data: (!data.is_none()).then_some(data),
            raw_data: None,
            event,
            id,
            retry,
            comment,
            of_subclass: false,
        };
        let frame = bytes::made(py, |out| fields.write_new(py, json, out))?;
        let mut text = Output::default();
        text.reserve(frame.as_bytes().len());
        let found = find(frame.as_bytes(), marks, data_is_slot, &mut text)
            .map_err(PyValueError::new_err)?;
        text.check()?;
        let mut slots: Vec<Slot> = Vec::with_capacity(found.len());
        for slot in found {
            let name = PyString::intern(py, &slot.name).unbind();
            if slots.iter().any(|other| other.name.is(&name)) {
                return Err(PyValueError::new_err(format!(
                    "slot '{name}' is there twice"
                )));
            }
            slots.push(Slot {
                name,
                place: slot.place,
                at: slot.at,
            });
        }
        Ok(Self {
            slots,
            text: text.into(),
            values,
        })
    }

    #[pyo3(signature = (*args, **values))]
    fn __call__(
        &self,
        args: &Bound<'_, PyTuple>,
        values: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<EncodedEvent> {
        let filled = bytes::made(args.py(), |out| {
            self.write(args, values, out)?;
            Ok(None)
        });
        filled.map(EncodedEvent::of)
    }

    /// A template with some of the slots filled, for one stream.
    #[pyo3(signature = (**values))]
    fn partial(&self, py: Python<'_>, values: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let mut slots = Vec::new();
        let mut text = Output::default();
        text.reserve(self.text.len());
        let mut from = 0;
        for slot in &self.slots {
            text.extend_from_slice(&self.text[from..slot.at]);
            from = slot.at;
            if let Some(value) = value_of(slot, values)? {
                self.fill(slot, &value, &mut text)?;
            } else {
                slots.push(Slot {
                    name: slot.name.clone_ref(py),
                    place: slot.place,
                    at: text.len(),
                });
            }
        }
        text.extend_from_slice(&self.text[from..]);
        text.check()?;
        self.check_known(values, self.slots.len() - slots.len())?;
        Ok(Self {
            slots,
            text: text.into(),
            values: self.values,
        })
    }

    /// Names of the slots, in the order of the frame.
    #[getter]
    fn slots<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.slots.iter().map(|slot| &slot.name))
    }

    fn __repr__(&self) -> String {
        format!("<EventTemplate with {}>", listed(&self.slots))
    }
}

impl EventTemplate {
    /// Append the frame with all slots filled.
    fn write(
        &self,
        args: &Bound<'_, PyTuple>,
        values: Option<&Bound<'_, PyDict>>,
        frame: &mut Output,
    ) -> PyResult<()> {
        // `template(*args, **{})` has keyword arguments, but none.
        let values = values.filter(|values| !values.is_empty());
        let mut from = 0;
        if let ([slot], None, 1) = (&self.slots[..], values, args.len()) {
            let value = args.get_borrowed_item(0)?;
            frame.reserve(self.text.len() + size_of(&value));
            frame.extend_from_slice(&self.text[..slot.at]);
            self.fill(slot, &value, frame)?;
            from = slot.at;
        } else if !args.is_empty() {
            return Err(PyTypeError::new_err(format!(
                "only the value of a single slot is positional, the template has {}",
                listed(&self.slots)
            )));
        } else {
            for slot in &self.slots {
                let Some(value) = value_of(slot, values)? else {
                    let missing = self.partial(args.py(), values)?.slots;
                    return Err(PyTypeError::new_err(format!(
                        "missing {}",
                        listed(&missing)
                    )));
                };
                frame.reserve(self.text.len() - from + size_of(&value));
                frame.extend_from_slice(&self.text[from..slot.at]);
                self.fill(slot, &value, frame)?;
                from = slot.at;
            }
            self.check_known(values, self.slots.len())?;
        }
        frame.extend_from_slice(&self.text[from..]);
        Ok(())
    }

    /// Append the value of a slot.
    fn fill(&self, slot: &Slot, value: &Bound<'_, PyAny>, out: &mut Output) -> PyResult<()> {
        if slot.place == Place::Json {
            return self.values.write(value, out);
        }
        if value.is_none() {
            return Ok(()); // as in an event: the field is absent
        }
        let mut field = FrameWriter::new(out);
        if slot.place == Place::Data {
            return write_data(value, self.values.spelling(), &mut field);
        }
        let Ok(text) = value.cast::<PyString>() else {
            return Err(PyTypeError::new_err(format!(
                "slot '{}' takes a str, not {}",
                slot.name,
                value.get_type().name()?
            )));
        };
        if slot.place == Place::Event {
            field.event(text.to_str()?)?;
        } else {
            field.id(text.to_str()?)?;
        }
        Ok(())
    }

    /// Refuse values without a slot, once it is known how many have one.
    fn check_known(&self, values: Option<&Bound<'_, PyDict>>, known: usize) -> PyResult<()> {
        let Some(values) = values else { return Ok(()) };
        if values.len() == known {
            return Ok(());
        }
        let is_known = |name: &String| {
            let mut slots = self.slots.iter();
            slots.any(|slot| slot.name.to_string() == *name)
        };
        let names = values.keys().into_iter().map(|name| name.to_string());
        let unknown: Vec<_> = names.filter(|name| !is_known(name)).collect();
        Err(PyTypeError::new_err(format!(
            "no slot '{}': the template has {}",
            unknown.join("', '"),
            listed(&self.slots)
        )))
    }
}

fn value_of<'py>(
    slot: &Slot,
    values: Option<&Bound<'py, PyDict>>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    match values {
        Some(values) => values.get_item(&slot.name),
        None => Ok(None),
    }
}

impl Values {
    /// How plain data that is a value is spelled.
    fn spelling(self) -> Spelling {
        match self {
            Self::OfPlainData(spelling) => spelling,
            Self::OfModel => Spelling::Compact,
        }
    }

    /// Write a value inside of `data`.
    fn write(self, value: &Bound<'_, PyAny>, out: &mut Output) -> PyResult<()> {
        static TO_JSON: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        match self {
            Self::OfPlainData(spelling) => json::write(value, spelling, out),
            Self::OfModel => {
                if let Ok(text) = value.cast_exact::<PyString>()
                    && let Ok(text) = text.to_str()
                {
                    write_string(text, Spelling::Compact, out);
                    return Ok(());
                }
                // A model's default, not the function's.
                let keywords = [("inf_nan_mode", "null")].into_py_dict(value.py())?;
                let to_json = TO_JSON.import(value.py(), "pydantic_core", "to_json")?;
                let json = to_json.call((value,), Some(&keywords))?;
                out.extend_from_slice(json.cast::<PyBytes>()?.as_bytes());
                Ok(())
            }
        }
    }
}

/// The space that a string without escapes takes, so that its frame is allocated once.
fn size_of(value: &Bound<'_, PyAny>) -> usize {
    match value.cast_exact::<PyString>() {
        Ok(text) => text.to_str().map_or(0, str::len) + 2,
        Err(_) => 0,
    }
}

/// `slot 'a'`, `slots 'a', 'b'` or `no slots`.
fn listed(slots: &[Slot]) -> String {
    let names: Vec<_> = slots
        .iter()
        .map(|slot| format!("'{}'", slot.name))
        .collect();
    match &names[..] {
        [] => "no slots".to_owned(),
        [name] => format!("slot {name}"),
        names => format!("slots {}", names.join(", ")),
    }
}
