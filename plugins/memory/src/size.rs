//! Sizes as people write them on a command line: `4096`, `512KiB`, `64MiB`, `2GiB`.

use thiserror::Error;

/// Why a text is not a size.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum SizeError {
    #[error("not a size; write bytes such as 65536, or 64KiB, 64MiB, 1GiB")]
    Unreadable,
    #[error("must be at least 1 byte")]
    Zero,
    #[error("larger than 16 EiB")]
    TooLarge,
}

/// Parses a number of bytes, with a binary unit or none.
pub(crate) fn parse(text: &str) -> Result<u64, SizeError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = UNITS.iter().find(|(name, _)| *name == unit).ok_or(SizeError::Unreadable)?.1;
    if number.is_empty() {
        return Err(SizeError::Unreadable);
    }
    // Only digits are left, so the one thing that can be wrong is that there are too many.
    let number: u64 = number.parse().map_err(|_| SizeError::TooLarge)?;
    match number.checked_mul(unit).ok_or(SizeError::TooLarge)? {
        0 => Err(SizeError::Zero),
        bytes => Ok(bytes),
    }
}

const UNITS: [(&str, u64); 4] = [("", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units_or_none() {
        for (text, expected) in [
            ("1", Ok(1)),
            ("65536", Ok(65_536)),
            ("64KiB", Ok(65_536)),
            ("64MiB", Ok(67_108_864)),
            ("2GiB", Ok(2_147_483_648)),
            ("18446744073709551615", Ok(u64::MAX)),
            ("18446744073709551616", Err(SizeError::TooLarge)),
            ("17179869184GiB", Err(SizeError::TooLarge)),
            ("0", Err(SizeError::Zero)),
            ("0MiB", Err(SizeError::Zero)),
            ("", Err(SizeError::Unreadable)),
            ("MiB", Err(SizeError::Unreadable)),
            ("-1", Err(SizeError::Unreadable)),
            ("+1", Err(SizeError::Unreadable)),
            ("1.5MiB", Err(SizeError::Unreadable)),
            ("64 MiB", Err(SizeError::Unreadable)),
            ("64mb", Err(SizeError::Unreadable)),
            ("64MB", Err(SizeError::Unreadable)),
            ("６４", Err(SizeError::Unreadable)),
        ] {
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }
}
