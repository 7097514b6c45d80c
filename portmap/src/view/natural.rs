//! The order of names in lists: numbers inside them count as numbers, `n2` comes before `n10`.

use std::cmp::Ordering;

/// Compares byte by byte, but runs of digits by their values; of equal values the one with fewer zeros comes first.
pub(crate) fn compare(one: &str, other: &str) -> Ordering {
    let (mut one, mut other) = (one.as_bytes(), other.as_bytes());
    loop {
        match (one, other) {
            ([a, ..], [b, ..]) if a.is_ascii_digit() && b.is_ascii_digit() => {
                let (digits, rest) = number(one);
                let (digits_other, rest_other) = number(other);
                let (value, value_other) = (significant(digits), significant(digits_other));
                let order = value
                    .len()
                    .cmp(&value_other.len())
                    .then_with(|| value.cmp(value_other))
                    .then_with(|| digits.len().cmp(&digits_other.len()));
                if order != Ordering::Equal {
                    return order;
                }
                (one, other) = (rest, rest_other);
            }
            ([a, rest @ ..], [b, rest_other @ ..]) if a == b => (one, other) = (rest, rest_other),
            _ => return one.cmp(other),
        }
    }
}

fn number(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().take_while(|b| b.is_ascii_digit()).count())
}

fn significant(digits: &[u8]) -> &[u8] {
    &digits[digits.iter().take_while(|b| **b == b'0').count()..]
}

#[cfg(test)]
mod tests {
    use super::compare;

    #[test]
    fn numbers_in_names_count_as_numbers() {
        let sorted =
            ["", "A", "a", "a0", "a1", "a1b", "a01", "a2", "a10", "a10b", "ab", "n1-2", "n1-10", "n2", "ü"];
        let mut names = sorted;
        names.reverse();
        names.sort_by(|one, other| compare(one, other));
        assert_eq!(names, sorted);
        assert!(compare("18446744073709551617", "18446744073709551616").is_gt());
    }
}
