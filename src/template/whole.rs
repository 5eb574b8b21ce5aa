//! Values that a template does not write in place: they are put into a copy of its data, which is
//! encoded. What comes of a scalar is compared with what would have been written in place, and
//! need not be found out again.

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::slotted::SlottedData;
use super::{EventTemplate, Slot, scalars, value_of};
use crate::event::write_data;
use crate::json;
use crate::output::Output;
use crate::slot::{Marks, Place, data_lines, find};
use crate::wire::FrameWriter;

impl EventTemplate {
    /// Append the frame with all slots filled, whatever they are filled with.
    ///
    /// # Errors
    ///
    /// Those of the values, and of encoding the data with them.
    pub(super) fn write_whole(
        &self,
        values: &Bound<'_, PyDict>,
        frame: &mut Output,
    ) -> PyResult<()> {
        let given = self.given(values)?;
        if given < self.slots.len() {
            return Err(self.missing(Some(values)));
        }
        self.check_known(Some(values), given)?;
        let lines = self.encoded(&self.with_bound(values)?)?;
        self.learn(values, &lines, &[])?;
        self.write_around(&lines, Vec::new(), values, frame)?;
        Ok(())
    }

    /// A template with some of the slots filled, whatever they are filled with.
    ///
    /// # Errors
    ///
    /// As for [`Self::write_whole`], and `ValueError` for a value that can be encoded only once.
    pub(super) fn partial_whole(&self, values: &Bound<'_, PyDict>) -> PyResult<Self> {
        let py = values.py();
        self.check_known(Some(values), self.given(values)?)?;
        let bound = self.with_bound(&self.slotted()?.kept(values)?)?;
        let encoded = self.encoded(&bound)?;
        let mut lines = Output::default();
        let found =
            find(&encoded, Marks::of(py)?, false, &mut lines).map_err(PyValueError::new_err)?;
        lines.check()?;
        let mut left = Vec::new();
        for slot in self.slots.iter().filter(|slot| slot.place == Place::Json) {
            if !values.contains(&slot.name)? {
                left.push(slot);
            }
        }
        if left.len() != found.len() {
            return Err(PyValueError::new_err(
                "with these values, other slots are in what the data is encoded to",
            ));
        }
        let mut inside = Vec::new();
        for found in found {
            let name = |slot: &&&Slot| slot.name.to_string() == found.name;
            let Some(slot) = left.iter().find(name) else {
                return Err(PyValueError::new_err(format!(
                    "a value has slot '{}' in it",
                    found.name
                )));
            };
            inside.push(slot.moved(py, found.at));
        }
        self.learn(values, &lines, &inside)?;
        let mut text = Output::default();
        let slots = self.write_around(&lines, inside, values, &mut text)?;
        text.check()?;
        Ok(self.with(py, slots, text.into(), Some(bound.unbind())))
    }

    /// The values of all slots that are filled, with these.
    pub(super) fn with_bound<'py>(
        &self,
        values: &Bound<'py, PyDict>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let Some(bound) = &self.bound else {
            return Ok(values.clone());
        };
        let bound = bound.bind(values.py()).copy()?;
        bound.update(values.as_mapping())?;
        Ok(bound)
    }

    fn slotted(&self) -> PyResult<&SlottedData> {
        let error = || PyRuntimeError::new_err("a template of plain data needs none of it");
        self.data.as_ref().ok_or_else(error)
    }

    /// How many slots have a value.
    fn given(&self, values: &Bound<'_, PyDict>) -> PyResult<usize> {
        let mut given = 0;
        for slot in &self.slots {
            given += usize::from(values.contains(&slot.name)?);
        }
        Ok(given)
    }

    /// The lines of the data with these values.
    fn encoded(&self, values: &Bound<'_, PyDict>) -> PyResult<Output> {
        let data = self.slotted()?.filled(values)?;
        let mut lines = Output::default();
        write_data(&data, self.json, &mut FrameWriter::new(&mut lines))?;
        lines.check()?;
        Ok(lines)
    }

    /// Append the frame with other lines of data, in which there are slots, and return all slots
    /// that are left.
    fn write_around(
        &self,
        lines: &[u8],
        inside: Vec<Slot>,
        values: &Bound<'_, PyDict>,
        out: &mut Output,
    ) -> PyResult<Vec<Slot>> {
        let data = data_lines(&self.text);
        let mut left = Vec::new();
        let mut copy_and_fill = |mut from: usize, place: Place, to: usize, out: &mut Output| {
            for slot in self.slots.iter().filter(|slot| slot.place == place) {
                out.extend_from_slice(&self.text[from..slot.at]);
                from = slot.at;
                match value_of(slot, Some(values))? {
                    Some(value) => drop(self.fill(slot, &value, out)?),
                    None => left.push(slot.moved(values.py(), out.len())),
                }
            }
            out.extend_from_slice(&self.text[from..to]);
            PyResult::Ok(())
        };
        copy_and_fill(0, Place::Event, data.start, out)?;
        let at = out.len();
        out.extend_from_slice(lines);
        copy_and_fill(data.end, Place::Id, self.text.len(), out)?;
        left.extend(inside.into_iter().map(|slot| Slot {
            at: slot.at + at,
            ..slot
        }));
        left.sort_by_key(|slot| slot.at);
        Ok(left)
    }

    /// Note which scalars came out as they would have been written in place.
    fn learn(&self, values: &Bound<'_, PyDict>, lines: &[u8], left: &[Slot]) -> PyResult<()> {
        let data = data_lines(&self.text);
        let mut from = data.start;
        let mut in_place = Output::default();
        let mut learned = Vec::new();
        let mut left = left.iter();
        for slot in self.slots.iter().filter(|slot| slot.place == Place::Json) {
            in_place.extend_from_slice(&self.text[from..slot.at]);
            from = slot.at;
            let Some(value) = value_of(slot, Some(values))? else {
                let other = left.next();
                if other.is_some_and(|left| left.name.is(&slot.name) && left.at == in_place.len()) {
                    continue;
                }
                return Ok(());
            };
            match (&slot.scalars, scalars::kind(&value)) {
                (Some(scalars), Some(kind)) if scalars.can_learn() => {
                    json::write(&value, self.scalars, &mut in_place)?;
                    learned.push((scalars, kind));
                }
                _ => return Ok(()),
            }
        }
        in_place.extend_from_slice(&self.text[from..data.end]);
        if *in_place == *lines {
            for (scalars, kind) in learned {
                scalars.learn(kind);
            }
        }
        Ok(())
    }
}
