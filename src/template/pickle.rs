//! Templates as what `pickle` takes: the pieces of the frame around the slots, and the data.

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

/// The arguments that restore a template: pieces, slots, `json` and the spelling of scalars, data,
/// and the values of slots that are filled.
pub(super) type State<'py> = (
    Vec<Bound<'py, PyBytes>>,
    Vec<SlotState>,
    (Spelling, Spelling),
    Option<Bound<'py, PyAny>>,
    Option<Bound<'py, PyDict>>,
);

/// A name, a place, and whether it learns which scalars may be written in place.
pub(super) type SlotState = (String, Place, Option<bool>);

impl EventTemplate {
    /// # Errors
    ///
    /// `MemoryError`.
    pub(super) fn state<'py>(&self, py: Python<'py>) -> PyResult<State<'py>> {
        let mut pieces = Vec::new();
        let mut slots = Vec::new();
        let mut from = 0;
        for slot in &self.slots {
            pieces.push(bytes::copied(py, &self.text[from..slot.at])?);
            from = slot.at;
            let can_learn = slot.scalars.as_ref().map(|scalars| scalars.can_learn());
            slots.push((slot.name.to_string(), slot.place, can_learn));
        }
        pieces.push(bytes::copied(py, &self.text[from..])?);
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

    /// # Errors
    ///
    /// `ValueError`: not what [`Self::state`] returns.
    pub(super) fn restored(py: Python<'_>, state: State<'_>) -> PyResult<Self> {
        let (pieces, names, (json, scalars), data, bound) = state;
        if pieces.len() != names.len() + 1 {
            return Err(PyValueError::new_err("not the pieces of a template"));
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
                    // Of another release of pydantic, perhaps: what was learned is forgotten.
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
                "not the places of a template's slots",
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
            None => Err(PyValueError::new_err("not a place of a slot")),
        }
    }
}
