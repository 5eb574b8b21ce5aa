//! Pickling templates: the pieces of the frame between the slots, and the data.
//!
//! Placeholders are not pickled, because another process has others.

use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};

use super::scalars::Scalars;
use super::slotted::SlottedData;
use super::{EventTemplate, Slot};
use crate::bytes;
use crate::json::Spelling;
use crate::output::Output;
use crate::slot::{Place, data_lines};

/// The arguments that restore a template: pieces of the frame, slots, the spellings of plain data
/// and of scalars, the data, and the values of the slots that are filled.
pub(super) type State<'py> = (
    Vec<Bound<'py, PyBytes>>,
    Vec<SlotState>,
    (Spelling, Spelling),
    Option<Bound<'py, PyAny>>,
    Option<Bound<'py, PyDict>>,
);

/// The name and the place of a slot. The last item is `None` if any value may be written in place,
/// otherwise whether the slot can learn which kinds of scalars may.
pub(super) type SlotState = (String, Place, Option<bool>);

impl EventTemplate {
    /// Return what [`Self::restored`] takes.
    ///
    /// # Errors
    ///
    /// `MemoryError`.
    pub(super) fn state<'py>(&self, py: Python<'py>) -> PyResult<State<'py>> {
        let mut pieces = Vec::new();
        let mut slots = Vec::new();
        let mut from = 0;
        for slot in &self.slots {
            pieces.push(bytes::copy(py, &self.text[from..slot.at])?);
            from = slot.at;
            let can_learn = slot.scalars.as_ref().map(|scalars| scalars.can_learn());
            slots.push((slot.name.to_string(), slot.place, can_learn));
        }
        pieces.push(bytes::copy(py, &self.text[from..])?);
        Ok((
            pieces,
            slots,
            (self.json, self.scalars),
            self.data
                .as_ref()
                .map(|data| data.object().bind(py).clone()),
            self.bound.as_ref().map(|bound| bound.bind(py).clone()),
        ))
    }

    /// Return the template of a state.
    ///
    /// # Errors
    ///
    /// `ValueError` if [`Self::state`] cannot have returned it.
    pub(super) fn restored(py: Python<'_>, state: State<'_>) -> PyResult<Self> {
        let (pieces, names, (json, scalars), data, bound) = state;
        if pieces.len() != names.len() + 1 {
            return Err(PyValueError::new_err(
                "invalid state of an EventTemplate: the number of pieces does not match the slots",
            ));
        }
        let mut text = Output::default();
        let mut slots = Vec::new();
        let mut names = names.into_iter();
        for piece in pieces {
            text.extend_from_slice(piece.as_bytes());
            if let Some((name, place, can_learn)) = names.next() {
                slots.push(Slot {
                    name: PyString::intern(py, &name).unbind(),
                    place,
                    at: text.len(),
                    // What the slot has learned is not pickled: the state may be loaded with
                    // another release of pydantic.
                    scalars: can_learn.map(|can_learn| Arc::new(Scalars::new(can_learn))),
                });
            }
        }
        text.check()?;
        let lines = data_lines(&text);
        let is_in_its_place = |slot: &Slot| match slot.place {
            Place::Json => lines.contains(&slot.at),
            Place::Data => true,
            Place::Event => slot.at <= lines.start,
            Place::Id => slot.at >= lines.end,
        };
        if data.is_some() && !slots.iter().all(is_in_its_place) {
            return Err(PyValueError::new_err(
                "invalid state of an EventTemplate: a slot is not in its place",
            ));
        }
        Ok(Self {
            slots,
            text: text.into(),
            json,
            scalars,
            data: data.map(SlottedData::of),
            bound: bound.map(Bound::unbind),
        })
    }
}

const PLACES: [(&str, Place); 4] = [
    ("json", Place::Json),
    ("data", Place::Data),
    ("event", Place::Event),
    ("id", Place::Id),
];

impl<'py> IntoPyObject<'py> for Place {
    type Target = PyString;
    type Output = Bound<'py, PyString>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        let mut places = PLACES.iter();
        let name = places
            .find(|(_, place)| *place == self)
            .map(|(name, _)| *name);
        Ok(PyString::new(py, name.unwrap_or_default()))
    }
}

impl<'a, 'py> FromPyObject<'a, 'py> for Place {
    type Error = PyErr;

    fn extract(name: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        let name: &str = name.extract()?;
        let mut places = PLACES.iter();
        match places.find(|(word, _)| *word == name) {
            Some((_, place)) => Ok(*place),
            None => Err(PyValueError::new_err(format!(
                "invalid state of an EventTemplate: there is no place '{name}' for a slot"
            ))),
        }
    }
}
