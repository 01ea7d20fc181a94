//! The shapes and values of inputs as users write them: `ids:1x16`, `sr:16000`, `state:0.5,0.25`.

use crate::error::{Result, bail};
use crate::limits;

/// Returns the name and the shape of an input in a text of the form `name:2x3x4`. The name ends at the last colon, and
/// may contain others. A scalar has nothing after the colon. Fails with `InvalidArgument` for other forms, for negative
/// sizes, and above [`limits::TENSOR_RANK`] dimensions.
pub fn parse_shape(text: &str) -> Result<(String, Vec<i64>)> {
    let Some((name, dims)) = text.rsplit_once(':').filter(|(name, _)| !name.is_empty()) else {
        bail!(InvalidArgument, "{text:?} is not a shape like NAME:2x3x4");
    };
    if dims.is_empty() {
        return Ok((name.to_owned(), Vec::new()));
    }
    let dims: Vec<&str> = dims.split('x').collect();
    if dims.len() > limits::TENSOR_RANK {
        bail!(InvalidArgument, "{text:?} has {} dimensions; the limit is {}", dims.len(), limits::TENSOR_RANK);
    }
    let dim = |d: &&str| match d.parse::<i64>() {
        Ok(size) if size >= 0 => Ok(size),
        _ => bail!(InvalidArgument, "{d:?} in {text:?} is not a size"),
    };
    Ok((name.to_owned(), dims.iter().map(dim).collect::<Result<_>>()?))
}

/// Returns the name and the values of an input in a text of the form `name:1,2.5`. The values are meant as one for each
/// element, or a single one for all elements; their number is not checked here. Fails with `InvalidArgument` for other
/// forms.
pub fn parse_values(text: &str) -> Result<(String, Vec<f64>)> {
    let Some((name, values)) = text.rsplit_once(':').filter(|(name, _)| !name.is_empty()) else {
        bail!(InvalidArgument, "{text:?} is not a list of values like NAME:1,2,3");
    };
    let value = |v: &str| match v.trim().parse::<f64>() {
        // An integer that float64 cannot represent would become another one.
        Ok(value) if v.trim().parse::<i128>().is_ok_and(|exact| exact != value as i128) => {
            bail!(InvalidArgument, "{v:?} in {text:?} cannot be represented exactly: give a tensor instead")
        }
        Ok(value) => Ok(value),
        Err(_) => bail!(InvalidArgument, "{v:?} in {text:?} is not a number"),
    };
    Ok((name.to_owned(), values.split(',').map(value).collect::<Result<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_and_values_are_read_and_nonsense_is_refused() {
        assert_eq!(parse_shape("ids:1x16").unwrap(), ("ids".to_owned(), vec![1, 16]));
        assert_eq!(parse_shape("input:0:3").unwrap(), ("input:0".to_owned(), vec![3]));
        assert_eq!(parse_shape("scalar:").unwrap(), ("scalar".to_owned(), vec![]));
        assert_eq!(parse_values("sr:16000").unwrap(), ("sr".to_owned(), vec![16000.0]));
        assert_eq!(parse_values("x:1, -2.5").unwrap(), ("x".to_owned(), vec![1.0, -2.5]));
        assert_eq!(parse_values("x:-9007199254740992").unwrap().1, [-9_007_199_254_740_992.0]);
        assert!(parse_values("x:9007199254740993").is_err());
        for bad in ["", "ids", ":1x2", "ids:1xx2", "ids:-1", "ids:a"] {
            assert!(parse_shape(bad).is_err(), "{bad}");
        }
        assert!(parse_values("x:").is_err() && parse_values("x:1,,2").is_err() && parse_values("y").is_err());
    }
}
