//! Filling slots whose values cannot be written in place.
//!
//! The values are put into a copy of the template's data, and the copy is encoded. If the JSON of a
//! scalar is the same as in place, the slot learns that, so that the next scalar of this kind is
//! written in place.

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::slotted::SlottedData;
use super::{EventTemplate, Slot, scalars, value_of};
use crate::event::write_data;
use crate::json;
use crate::output::Output;
use crate::slot::{Place, Prefixes, cut_out_slots, data_lines};
use crate::wire::FrameWriter;

impl EventTemplate {
    /// Append the frame with all slots filled, by encoding the data with the values.
    ///
    /// # Errors
    ///
    /// `TypeError` if the values are not those of the slots, or whatever encoding raises.
    pub(super) fn write_whole(
        &self,
        values: &Bound<'_, PyDict>,
        frame: &mut Output,
    ) -> PyResult<()> {
        let known = self.count_known(values)?;
        if known < self.slots.len() {
            return Err(self.missing(Some(values)));
        }
        self.check_known(Some(values), known)?;
        let lines = self.encode_lines(&self.with_bound(values)?)?;
        self.learn(values, &lines, &[])?;
        self.write_around(&lines, Vec::new(), values, frame)?;
        Ok(())
    }

    /// Return a template with some of the slots filled, by encoding the data with the values.
    ///
    /// # Errors
    ///
    /// `TypeError` for a value without a slot, `ValueError` for a value that can be encoded only
    /// once, or whatever encoding raises.
    pub(super) fn partial_whole(&self, values: &Bound<'_, PyDict>) -> PyResult<Self> {
        let py = values.py();
        self.check_known(Some(values), self.count_known(values)?)?;
        let bound = self.with_bound(&self.slotted()?.kept(values)?)?;
        let encoded = self.encode_lines(&bound)?;
        let mut lines = Output::default();
        let found = cut_out_slots(&encoded, Prefixes::of(py)?, false, &mut lines)
            .map_err(PyValueError::new_err)?;
        lines.check()?;
        let mut unfilled = Vec::new();
        for slot in self.slots.iter().filter(|slot| slot.place == Place::Json) {
            if !values.contains(&slot.name)? {
                unfilled.push(slot);
            }
        }
        if unfilled.len() != found.len() {
            return Err(PyValueError::new_err(
                "with these values, the encoded data has other slots than the template",
            ));
        }
        let mut in_lines = Vec::new();
        for found in found {
            let has_name = |slot: &&&Slot| slot.name.to_string() == found.name;
            let Some(slot) = unfilled.iter().find(has_name) else {
                return Err(PyValueError::new_err(format!(
                    "a value contains slot '{}'",
                    found.name
                )));
            };
            in_lines.push(slot.moved(py, found.at));
        }
        self.learn(values, &lines, &in_lines)?;
        let mut text = Output::default();
        let slots = self.write_around(&lines, in_lines, values, &mut text)?;
        text.check()?;
        Ok(self.with(py, slots, text.into(), Some(bound.unbind())))
    }

    /// Return `values` with those of the slots that are filled already.
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

    /// Return the data, which only a template of plain data does not have.
    fn slotted(&self) -> PyResult<&SlottedData> {
        let error = || PyRuntimeError::new_err("a template of plain data does not keep it");
        self.data.as_ref().ok_or_else(error)
    }

    /// Return how many slots have a value.
    fn count_known(&self, values: &Bound<'_, PyDict>) -> PyResult<usize> {
        let mut known = 0;
        for slot in &self.slots {
            known += usize::from(values.contains(&slot.name)?);
        }
        Ok(known)
    }

    /// Return the `data: ` lines of the data with these values.
    fn encode_lines(&self, values: &Bound<'_, PyDict>) -> PyResult<Output> {
        let data = self.slotted()?.filled(values)?;
        let mut lines = Output::default();
        write_data(&data, self.json, &mut FrameWriter::new(&mut lines))?;
        lines.check()?;
        Ok(lines)
    }

    /// Append the frame with `lines` as its `data: ` lines, and return the slots that are not
    /// filled. `in_lines` are those in the lines.
    fn write_around(
        &self,
        lines: &[u8],
        in_lines: Vec<Slot>,
        values: &Bound<'_, PyDict>,
        out: &mut Output,
    ) -> PyResult<Vec<Slot>> {
        let data = data_lines(&self.text);
        let mut unfilled = Vec::new();
        let mut copy_and_fill = |mut from: usize, place: Place, to: usize, out: &mut Output| {
            for slot in self.slots.iter().filter(|slot| slot.place == place) {
                out.extend_from_slice(&self.text[from..slot.at]);
                from = slot.at;
                match value_of(slot, Some(values))? {
                    Some(value) => drop(self.fill(slot, &value, out)?),
                    None => unfilled.push(slot.moved(values.py(), out.len())),
                }
            }
            out.extend_from_slice(&self.text[from..to]);
            PyResult::Ok(())
        };
        copy_and_fill(0, Place::Event, data.start, out)?;
        let at = out.len();
        out.extend_from_slice(lines);
        copy_and_fill(data.end, Place::Id, self.text.len(), out)?;
        unfilled.extend(in_lines.into_iter().map(|slot| Slot {
            at: slot.at + at,
            ..slot
        }));
        unfilled.sort_by_key(|slot| slot.at);
        Ok(unfilled)
    }

    /// Let the slots learn the kinds of their values if `lines` are the same as with all values
    /// written in place. `unfilled` are the slots in the lines.
    fn learn(&self, values: &Bound<'_, PyDict>, lines: &[u8], unfilled: &[Slot]) -> PyResult<()> {
        let data = data_lines(&self.text);
        let mut from = data.start;
        let mut in_place = Output::default();
        let mut learned = Vec::new();
        let mut unfilled = unfilled.iter();
        for slot in self.slots.iter().filter(|slot| slot.place == Place::Json) {
            in_place.extend_from_slice(&self.text[from..slot.at]);
            from = slot.at;
            let Some(value) = value_of(slot, Some(values))? else {
                let is_same =
                    |other: &Slot| other.name.is(&slot.name) && other.at == in_place.len();
                if unfilled.next().is_some_and(is_same) {
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
