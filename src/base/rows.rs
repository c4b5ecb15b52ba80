//! Rows of several tables that are counted through as those of one.

/// The table that a row lies in. `start` says of each which row it begins with; they ascend, and of those that begin with the same row all
/// but the last are empty.
pub fn table_of<T>(tables: &[T], start: impl Fn(&T) -> usize, row: usize) -> usize {
    tables.partition_point(|table| start(table) <= row).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_lies_in_the_last_table_that_begins_at_it_or_before() {
        let found = [0, 9, 10, 14, 15, 99].map(|row| table_of(&[0, 10, 10, 15], |start| *start, row));
        assert_eq!(found, [0, 0, 2, 2, 3, 3]);
    }
}
