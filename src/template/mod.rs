//! `EventTemplate`: a frame that is encoded once, with slots for the values that differ.
//!
//! A value that needs nothing but its own JSON is written straight into the frame, which this
//! module does. For any other value the data is encoded again, which `whole` does.

mod pickle;
mod scalars;
mod slotted;
mod whole;

use std::sync::Arc;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString, PyTuple};

use self::scalars::Scalars;
use self::slotted::SlottedData;
use crate::bytes;
use crate::encoded::EncodedEvent;
use crate::event::{EventTypes, Fields, is_model, write_data};
use crate::json::{self, Spelling, write_string};
use crate::output::Output;
use crate::slot::{FoundSlot, Place, Prefixes, cut_out_slots};
use crate::wire::FrameWriter;

#[doc = stub_doc!("EventTemplate")]
#[pyclass(frozen, module = "fastapi_sse_fast._core")]
pub(crate) struct EventTemplate {
    slots: Vec<Slot>,
    /// The frame without the slots.
    text: Vec<u8>,
    /// The spelling of plain data.
    json: Spelling,
    /// The spelling of scalars inside this data.
    scalars: Spelling,
    /// The data, if the JSON of a slot's value can depend on the values around it.
    data: Option<SlottedData>,
    /// The values of the slots that `partial` has filled.
    bound: Option<Py<PyDict>>,
}

struct Slot {
    name: Py<PyString>,
    place: Place,
    /// The position in the text.
    at: usize,
    /// The kinds of values that may be written in place, or `None` if any value may.
    scalars: Option<Arc<Scalars>>,
}

impl Slot {
    /// Return the slot at another position.
    fn moved(&self, py: Python<'_>, at: usize) -> Self {
        Self {
            name: self.name.clone_ref(py),
            place: self.place,
            at,
            scalars: self.scalars.clone(),
        }
    }
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
                "an EventTemplate takes the data of an event, not an event: pass event, id, retry \
                 and comment as keyword arguments",
            ));
        }
        let prefixes = Prefixes::of(py)?;
        let data_is_slot = match data.cast::<PyString>() {
            Ok(text) => text.to_str().is_ok_and(|text| prefixes.is_slot_text(text)),
            Err(_) => false,
        };
        let writes_itself = is_model(&data)?;
        let (slotted, data) = if data_is_slot {
            (None, data)
        } else {
            let slotted = SlottedData::new(&data, writes_itself)?;
            let data = slotted.data(py)?;
            (Some(slotted), data)
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
        let frame = bytes::build(py, |out| fields.write_new(py, json, out))?;
        let mut text = Output::default();
        text.reserve(frame.as_bytes().len());
        let found = cut_out_slots(frame.as_bytes(), prefixes, data_is_slot, &mut text)
            .map_err(PyValueError::new_err)?;
        text.check()?;
        let mut template = Self {
            slots: Vec::new(),
            text: text.into(),
            json,
            scalars: if writes_itself {
                Spelling::Compact
            } else {
                json
            },
            data: None,
            bound: None,
        };
        let Some(slotted) = slotted else {
            template.slots = checked_slots(py, found, &[], true)?;
            return Ok(template);
        };
        let is_plain = slotted.is_plain(py)?;
        template.slots = checked_slots(py, found, &slotted.slots(py)?, is_plain)?;
        template.data = (!is_plain).then_some(slotted);
        Ok(template)
    }

    #[pyo3(signature = (*args, **values))]
    fn __call__(
        &self,
        args: &Bound<'_, PyTuple>,
        values: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<EncodedEvent> {
        let frame = bytes::build(args.py(), |out| {
            self.write(args, values, out)?;
            Ok(None)
        });
        frame.map(EncodedEvent::of)
    }

    #[doc = stub_doc!("EventTemplate.partial")]
    #[pyo3(signature = (**values))]
    fn partial<'py>(&self, py: Python<'py>, values: Option<&Bound<'py, PyDict>>) -> PyResult<Self> {
        let mut slots = Vec::new();
        let mut text = Output::default();
        text.reserve(self.text.len());
        let mut from = 0;
        for slot in &self.slots {
            text.extend_from_slice(&self.text[from..slot.at]);
            from = slot.at;
            if let Some(value) = value_of(slot, values)? {
                if !self.fill(slot, &value, &mut text)?
                    && let Some(values) = values
                {
                    return self.partial_whole(values);
                }
            } else {
                slots.push(slot.moved(py, text.len()));
            }
        }
        text.extend_from_slice(&self.text[from..]);
        text.check()?;
        self.check_known(values, self.slots.len() - slots.len())?;
        let bound = match (&self.data, values) {
            // The values need no copies: all of them were written in place, so they are scalars,
            // which cannot change.
            (Some(_), Some(values)) => Some(self.with_bound(values)?.unbind()),
            _ => self.bound.as_ref().map(|bound| bound.clone_ref(py)),
        };
        Ok(self.with(py, slots, text.into(), bound))
    }

    #[doc = stub_doc!("EventTemplate.slots")]
    #[getter]
    fn slots<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.slots.iter().map(|slot| &slot.name))
    }

    fn __repr__(&self) -> String {
        format!("<EventTemplate with {}>", list_slots(&self.slots))
    }

    /// Return the template itself, because it cannot change.
    fn __copy__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (_memo, /))]
    fn __deepcopy__<'py>(slf: Bound<'py, Self>, _memo: &Bound<'py, PyAny>) -> Bound<'py, Self> {
        slf
    }

    fn __reduce__<'py>(
        slf: &Bound<'py, Self>,
    ) -> PyResult<(Bound<'py, PyAny>, pickle::State<'py>)> {
        let restore = slf.get_type().getattr("_restore")?;
        Ok((restore, slf.get().state(slf.py())?))
    }

    /// Return the template of a pickled state.
    ///
    /// # Errors
    ///
    /// `ValueError` if the state is not valid.
    #[staticmethod]
    #[pyo3(signature = (pieces, slots, spellings, data, bound, /))]
    fn _restore(
        pieces: Vec<Bound<'_, PyBytes>>,
        slots: Vec<pickle::SlotState>,
        spellings: (Spelling, Spelling),
        data: Option<Bound<'_, PyAny>>,
        bound: Option<Bound<'_, PyDict>>,
        py: Python<'_>,
    ) -> PyResult<Self> {
        Self::restored(py, (pieces, slots, spellings, data, bound))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.bound)?;
        match &self.data {
            Some(data) => data.traverse(&visit),
            None => Ok(()),
        }
    }
}

impl EventTemplate {
    /// Return another template of the same data.
    fn with(
        &self,
        py: Python<'_>,
        slots: Vec<Slot>,
        text: Vec<u8>,
        bound: Option<Py<PyDict>>,
    ) -> Self {
        Self {
            slots,
            text,
            json: self.json,
            scalars: self.scalars,
            data: self.data.as_ref().map(|data| data.clone_ref(py)),
            bound,
        }
    }

    /// Append the frame with all slots filled.
    ///
    /// # Errors
    ///
    /// `TypeError` if the values are not those of the slots, or whatever encoding a value raises.
    fn write<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        values: Option<&Bound<'py, PyDict>>,
        frame: &mut Output,
    ) -> PyResult<()> {
        // `template(*args, **{})` passes an empty dict instead of none.
        let values = values.filter(|values| !values.is_empty());
        let mut from = 0;
        if let ([slot], None, 1) = (&self.slots[..], values, args.len()) {
            let value = args.get_borrowed_item(0)?;
            frame.reserve(self.text.len() + expected_size(&value));
            frame.extend_from_slice(&self.text[..slot.at]);
            if !self.fill(slot, &value, frame)? {
                frame.truncate(0);
                let values = PyDict::new(args.py());
                values.set_item(&slot.name, value)?;
                return self.write_whole(&values, frame);
            }
            from = slot.at;
        } else if !args.is_empty() {
            return Err(PyTypeError::new_err(format!(
                "only a template with one slot takes a positional value, and only one: the \
                 template has {}",
                list_slots(&self.slots)
            )));
        } else {
            for slot in &self.slots {
                let Some(value) = value_of(slot, values)? else {
                    return Err(self.missing(values));
                };
                frame.reserve(self.text.len() - from + expected_size(&value));
                frame.extend_from_slice(&self.text[from..slot.at]);
                if !self.fill(slot, &value, frame)?
                    && let Some(values) = values
                {
                    frame.truncate(0);
                    return self.write_whole(values, frame);
                }
                from = slot.at;
            }
            self.check_known(values, self.slots.len())?;
        }
        frame.extend_from_slice(&self.text[from..]);
        Ok(())
    }

    /// Append the value of a slot in place. Return `false` if the data has to be encoded with the
    /// value instead.
    ///
    /// # Errors
    ///
    /// As [`Self::write`].
    fn fill(&self, slot: &Slot, value: &Bound<'_, PyAny>, out: &mut Output) -> PyResult<bool> {
        if slot.place == Place::Json {
            return self.fill_json(slot, value, out);
        }
        if value.is_none() {
            // As in an event, the field is absent.
            return Ok(true);
        }
        let mut field = FrameWriter::new(out);
        if slot.place == Place::Data {
            write_data(value, self.json, &mut field)?;
            return Ok(true);
        }
        let Ok(text) = value.cast::<PyString>() else {
            return Err(PyTypeError::new_err(format!(
                "slot '{}' must be a str, not {}",
                slot.name,
                value.get_type().name()?
            )));
        };
        if slot.place == Place::Event {
            field.event(text.to_str()?)?;
        } else {
            field.id(text.to_str()?)?;
        }
        Ok(true)
    }

    /// As [`Self::fill`], for a slot in the JSON of `data`.
    fn fill_json(&self, slot: &Slot, value: &Bound<'_, PyAny>, out: &mut Output) -> PyResult<bool> {
        if let Some(scalars) = &slot.scalars {
            if scalars.knows(scalars::TEXT)
                && let Ok(text) = value.cast_exact::<PyString>()
                && let Ok(text) = text.to_str()
            {
                write_string(text, self.scalars, out);
                return Ok(true);
            }
            if !scalars::kind(value).is_some_and(|kind| scalars.knows(kind)) {
                return Ok(false);
            }
        }
        json::write(value, self.scalars, out)?;
        Ok(true)
    }

    /// Return the error for slots without a value.
    fn missing(&self, values: Option<&Bound<'_, PyDict>>) -> PyErr {
        let mut missing = Vec::new();
        for slot in &self.slots {
            match value_of(slot, values) {
                Ok(None) => missing.push(&slot.name),
                Ok(Some(_)) => {}
                Err(error) => return error,
            }
        }
        PyTypeError::new_err(format!("missing value for {}", list_names(missing)))
    }

    /// Check that each value has a slot, given that `known` of them have one.
    ///
    /// # Errors
    ///
    /// `TypeError` for a value without a slot.
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
            "no slot{} '{}': the template has {}",
            if unknown.len() == 1 { "" } else { "s" },
            unknown.join("', '"),
            list_slots(&self.slots)
        )))
    }
}

/// Return the value of a slot, if there is one.
fn value_of<'py>(
    slot: &Slot,
    values: Option<&Bound<'py, PyDict>>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    match values {
        Some(values) => values.get_item(&slot.name),
        None => Ok(None),
    }
}

/// Return the slots of the frame, after comparing them with those of the data.
///
/// # Errors
///
/// `ValueError` if a slot is used twice, is missing from the frame, or is where it cannot be
/// filled.
fn checked_slots(
    py: Python<'_>,
    found: Vec<FoundSlot>,
    in_data: &[(String, bool)],
    is_plain: bool,
) -> PyResult<Vec<Slot>> {
    let mut slots: Vec<Slot> = Vec::with_capacity(found.len());
    for FoundSlot { name, place, at } in found {
        let error = |what: &str| Err(PyValueError::new_err(format!("slot '{name}' {what}")));
        let name_in_python = PyString::intern(py, &name);
        if slots.iter().any(|slot| slot.name.is(&name_in_python)) {
            return error("is used twice");
        }
        let mut scalars = None;
        if place == Place::Json {
            let Some((_, can_learn)) = in_data.iter().find(|(known, _)| *known == name) else {
                return error(
                    "is in an iterator, a set or an object that encodes itself, but a slot must \
                     be in a field, an attribute, a list, a tuple or a dict",
                );
            };
            scalars = (!is_plain).then(|| Arc::new(Scalars::new(*can_learn)));
        }
        slots.push(Slot {
            name: name_in_python.unbind(),
            place,
            at,
            scalars,
        });
    }
    for (name, _) in in_data {
        let is_it = |slot: &Slot| slot.place == Place::Json && slot.name.to_string() == *name;
        if !slots.iter().any(is_it) {
            return Err(PyValueError::new_err(format!(
                "slot '{name}' is missing from the encoded data"
            )));
        }
    }
    Ok(slots)
}

/// Return the size of a string without escapes, so that its frame is usually allocated only once.
fn expected_size(value: &Bound<'_, PyAny>) -> usize {
    match value.cast_exact::<PyString>() {
        Ok(text) => text.to_str().map_or(0, str::len) + 2,
        Err(_) => 0,
    }
}

/// Return `slot 'a'`, `slots 'a', 'b'` or `no slots`.
fn list_slots(slots: &[Slot]) -> String {
    list_names(slots.iter().map(|slot| &slot.name))
}

fn list_names<'a>(names: impl IntoIterator<Item = &'a Py<PyString>>) -> String {
    let names: Vec<_> = names.into_iter().map(|name| format!("'{name}'")).collect();
    match &names[..] {
        [] => "no slots".to_owned(),
        [name] => format!("slot {name}"),
        names => format!("slots {}", names.join(", ")),
    }
}
