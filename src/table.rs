// SPDX-License-Identifier: GPL-2.0-only
//! Tables for other programs: Parquet, which DuckDB, Polars, Spark and pandas read, and what they write.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use parquet::basic::Compression;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

/// A column: one value for each row.
#[derive(Debug, Clone, PartialEq)]
pub enum Column {
    /// Integers.
    Whole(Vec<i64>),
    /// Numbers that may be missing.
    Real(Vec<Option<f64>>),
    /// Texts.
    Text(Vec<String>),
}

impl Column {
    fn len(&self) -> usize {
        match self {
            Column::Whole(values) => values.len(),
            Column::Real(values) => values.len(),
            Column::Text(values) => values.len(),
        }
    }

    /// As the schema language of Parquet calls it.
    fn kind(&self, name: &str) -> String {
        match self {
            Column::Whole(_) => format!("required int64 {name};"),
            Column::Real(_) => format!("optional double {name};"),
            Column::Text(_) => format!("required binary {name} (STRING);"),
        }
    }
}

/// A Parquet file of these columns, in one group of rows.
///
/// # Errors
/// A name is not one (letters, digits, underscores), or columns differ in length.
pub fn to_parquet(columns: &[(&str, Column)]) -> Result<Vec<u8>> {
    let rows = columns.first().map_or(0, |(_, column)| column.len());
    ensure!(columns.iter().all(|(_, column)| column.len() == rows), "columns of a table differ in length");
    let kinds: String = columns.iter().map(|(name, column)| column.kind(name)).collect();
    let schema = parse_message_type(&format!("message row {{ {kinds} }}")).context("cannot describe the table")?;
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut writer = SerializedFileWriter::new(Vec::new(), Arc::new(schema), Arc::new(properties))?;
    let mut group = writer.next_row_group()?;
    for (_, column) in columns {
        let mut out = group.next_column()?.context("the table has fewer columns than it should")?;
        match column {
            Column::Whole(values) => out.typed::<Int64Type>().write_batch(values, None, None)?,
            Column::Real(values) => {
                let present: Vec<f64> = values.iter().copied().flatten().collect();
                let defined: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
                out.typed::<DoubleType>().write_batch(&present, Some(&defined), None)?
            }
            Column::Text(values) => {
                let texts: Vec<ByteArray> = values.iter().map(|text| text.as_str().into()).collect();
                out.typed::<ByteArrayType>().write_batch(&texts, None, None)?
            }
        };
        out.close()?;
    }
    group.close()?;
    writer.into_inner().context("cannot finish the table")
}

/// A Parquet file that is being read, a group of rows at a time.
pub struct Table {
    file: SerializedFileReader<Bytes>,
}

impl Table {
    /// # Errors
    /// It is not a Parquet file.
    pub fn open(bytes: Bytes) -> Result<Self> {
        let file = SerializedFileReader::new(bytes).context("not a Parquet file, or a damaged one")?;
        Ok(Self { file })
    }

    /// Groups of rows.
    pub fn groups(&self) -> usize {
        self.file.num_row_groups()
    }

    /// The integers of a column, of 32 or 64 bits in the file.
    ///
    /// # Errors
    /// There is no such column, it has other values or missing ones, or is damaged.
    pub fn whole(&self, group: usize, name: &str) -> Result<Vec<i64>> {
        self.column(group, name, |reader, rows| match reader {
            ColumnReader::Int64ColumnReader(reader) => all(reader, rows),
            ColumnReader::Int32ColumnReader(reader) => Ok(all(reader, rows)?.into_iter().map(i64::from).collect()),
            _ => bail!("its values are not integers of 32 or 64 bits"),
        })
    }

    /// The bytes of a column of texts.
    ///
    /// # Errors
    /// As [`Table::whole`].
    pub fn text(&self, group: usize, name: &str) -> Result<Vec<Bytes>> {
        self.column(group, name, |reader, rows| match reader {
            ColumnReader::ByteArrayColumnReader(reader) => {
                Ok(all(reader, rows)?.into_iter().map(|text| Bytes::copy_from_slice(text.data())).collect())
            }
            _ => bail!("its values are not texts"),
        })
    }

    fn column<T>(
        &self,
        group: usize,
        name: &str,
        read: impl FnOnce(ColumnReader, usize) -> Result<Vec<T>>,
    ) -> Result<Vec<T>> {
        let context = || format!("cannot read the column {name}");
        let columns = self.file.metadata().file_metadata().schema_descr().columns();
        let index = columns.iter().position(|column| column.path().string() == name);
        let index = index.context("there is none").with_context(context)?;
        let group = self.file.get_row_group(group).with_context(context)?;
        let rows = usize::try_from(group.metadata().num_rows()).with_context(context)?;
        read(group.get_column_reader(index).with_context(context)?, rows).with_context(context)
    }
}

/// All values of a column. Grows with what is there, not with what the file claims.
fn all<T: DataType>(mut reader: ColumnReaderImpl<T>, rows: usize) -> Result<Vec<T::T>> {
    let (mut values, mut defined) = (Vec::new(), Vec::new());
    let (found, ..) = reader.read_records(rows, Some(&mut defined), None, &mut values)?;
    ensure!(found == rows, "it has {found} of {rows} values");
    ensure!(values.len() == rows, "{} of {rows} values are missing (null)", rows - values.len());
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_comes_back_as_it_was() {
        let columns = [
            ("whole", Column::Whole(vec![i64::MIN, 0, i64::MAX])),
            ("real", Column::Real(vec![Some(0.1), None, Some(-1e300)])),
            ("text", Column::Text(vec!["".into(), "a".into(), "\u{e9}".into()])),
        ];
        let bytes = to_parquet(&columns).unwrap();
        let table = Table::open(bytes.clone().into()).unwrap();
        assert_eq!(table.groups(), 1);
        assert_eq!(table.whole(0, "whole").unwrap(), [i64::MIN, 0, i64::MAX]);
        assert_eq!(table.text(0, "text").unwrap(), ["", "a", "\u{e9}"]);
        let why = |error: anyhow::Error| format!("{error:#}");
        assert_eq!(why(table.whole(0, "absent").unwrap_err()), "cannot read the column absent: there is none");
        assert!(why(table.whole(0, "text").unwrap_err()).contains("not integers"));
        assert!(why(table.text(0, "whole").unwrap_err()).contains("not texts"));
        assert!(why(table.whole(0, "real").unwrap_err()).contains("not integers"));
        assert!(Table::open(bytes[..bytes.len() - 1].to_vec().into()).is_err());
        assert!(to_parquet(&[("a", Column::Whole(vec![1])), ("b", Column::Whole(vec![]))]).is_err());
    }

    /// Any damage is an error or other numbers, never a panic or memory without end.
    #[test]
    fn damaged_tables_do_no_harm() {
        use rand::{Rng, SeedableRng};
        let values: Vec<i64> = (0..500).map(|i| i * i).collect();
        let good = to_parquet(&[("whole", Column::Whole(values.clone()))]).unwrap();
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let mut refused = 0;
        for _ in 0..2000 {
            let mut bytes = good.clone();
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..bytes.len());
                bytes[at] = rng.random();
            }
            let read = Table::open(bytes.into()).and_then(|table| table.whole(0, "whole"));
            refused += usize::from(read.is_err());
        }
        assert!(refused > 200, "{refused}");
    }
}
