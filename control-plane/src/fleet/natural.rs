//! The order in which people number things: R2 before R10.

/// A part of a [`key`]: numbers go before letters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Number(u64),
    Text(String),
}

/// What a text is ordered by: its runs of digits as numbers, the rest as lower-case text.
pub fn key(text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let digits = first.is_ascii_digit();
        let end = rest.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        parts.push(if digits {
            // A number beyond u64 is no rack's; it comes last.
            Part::Number(run.parse().unwrap_or(u64::MAX))
        } else {
            Part::Text(run.to_lowercase())
        });
        rest = after;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_count() {
        let mut names = ["R10", "r2", "R1-12", "R1-2", "", "机架3", "机架20", "99999999999999999999999"];
        names.sort_by_key(|n| key(n));
        assert_eq!(names, ["", "99999999999999999999999", "R1-2", "R1-12", "r2", "R10", "机架3", "机架20"]);
    }
}
