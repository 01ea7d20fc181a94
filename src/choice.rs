//! The macro `choice!`, which defines an option with a fixed list of values, each written once: its name, its number in
//! C and its documentation.
//!
//! From this list, the macro makes `Serialize`, `Deserialize`, `FromStr` and the name in reports, the conversion of the
//! number that C programs pass, the values of a flag of the command with their help, the JSON schema, and the messages
//! about unknown values. The C enum is in `src/ffi`, from which the header is generated; a test there compares the C
//! enums with the enums of this macro.

use crate::error::{Error, error};

/// A macro that declares an enum of the values of one option.
///
/// In `pub enum Name: c_enum_t = First { .. }`, `c_enum_t` is the name of the C enum and `First` the default value;
/// both are optional. The first paragraph of a value's documentation is also its help text.
macro_rules! choice {
    (
        $(#[$attribute:meta])*
        $visibility:vis enum $name:ident $(: $c_name:ident)? $(= $default:ident)? {
            $( $(#[doc = $doc:literal])+ $variant:ident = $code:literal, $text:literal; )+
        }
    ) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        $visibility enum $name {
            $( $(#[doc = $doc])+ $variant = $code, )+
        }

        $(
            impl Default for $name {
                fn default() -> Self {
                    $name::$default
                }
            }
        )?

        // Not every enum uses all of these.
        #[allow(dead_code)]
        impl $name {
            /// All values, in the order of their numbers in C.
            pub const ALL: &'static [$name] = &[$( $name::$variant, )+];
            /// The name of the enum in the C interface; empty if it has none.
            pub(crate) const C_NAME: &'static str = concat!($( stringify!($c_name) )?);

            /// Returns the name of the value in options and reports.
            pub const fn name(self) -> &'static str {
                match self {
                    $( $name::$variant => $text, )+
                }
            }

            /// Returns the number of the value in the C interface.
            pub const fn code(self) -> i32 {
                self as i32
            }

            /// Returns the value with the number `code` in the C interface. `option` is the option's name in messages.
            /// Fails with `InvalidArgument` for other numbers.
            pub fn from_code(code: i32, option: &str) -> $crate::error::Result<$name> {
                let found = $name::ALL.iter().find(|value| value.code() == code);
                found.copied().ok_or_else(|| $crate::choice::unknown_code(code, option, $name::C_NAME))
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::error::Error;

            fn from_str(text: &str) -> $crate::error::Result<$name> {
                let found = $name::ALL.iter().find(|value| value.name() == text);
                found.copied().ok_or_else(|| $crate::choice::unknown_name(text, &[$( $text, )+]))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<$name, D::Error> {
                let name = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                name.parse().map_err(serde::de::Error::custom)
            }
        }

        #[cfg(feature = "cli")]
        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let values = [$( ($text, $crate::choice::help(&[$( $doc, )+])), )+];
                let values = values.map(|(name, help)| serde_json::json!({ "const": name, "description": help }));
                schemars::json_schema!({ "oneOf": values })
            }
        }

        #[cfg(feature = "cli")]
        impl clap::ValueEnum for $name {
            fn value_variants<'a>() -> &'a [$name] {
                $name::ALL
            }

            fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
                let help = match self {
                    $( $name::$variant => $crate::choice::help(&[$( $doc, )+]), )+
                };
                Some(clap::builder::PossibleValue::new(self.name()).help(help))
            }
        }
    };
}
pub(crate) use choice;

/// Returns the error for a number of the option `option` that is not a value of the C enum `c_name`.
pub(crate) fn unknown_code(code: i32, option: &str, c_name: &str) -> Error {
    error!(InvalidArgument, "{option} is {code}, which is not a value of {c_name}")
}

/// Returns the error for a text that is not one of `names`, the names of the values of an option.
pub(crate) fn unknown_name(text: &str, names: &[&str]) -> Error {
    error!(InvalidArgument, "{text:?} is not one of {}", names.join(", "))
}

/// Returns the first paragraph of a documentation comment on one line, without backticks and without its full stop, for
/// the help of the command.
#[cfg(feature = "cli")]
pub(crate) fn help(lines: &[&str]) -> String {
    let paragraph: Vec<&str> = lines.iter().map(|line| line.trim()).take_while(|line| !line.is_empty()).collect();
    paragraph.join(" ").trim_end_matches('.').replace('`', "")
}

#[cfg(test)]
mod tests {
    use crate::error::Kind;

    choice! {
        /// A colour.
        enum Colour: optimize_colour_t = Red {
            /// As blood,
            /// fresh.
            ///
            /// More on red.
            Red = 0, "red";
            /// As the sky.
            LightBlue = 1, "light-blue";
        }
    }

    #[test]
    fn one_list_serves_names_numbers_and_files() {
        assert_eq!((Colour::default(), Colour::ALL.len(), Colour::LightBlue.code()), (Colour::Red, 2, 1));
        for value in Colour::ALL {
            assert_eq!(value.name().parse::<Colour>().unwrap(), *value);
            assert_eq!(Colour::from_code(value.code(), "colour").unwrap(), *value);
            let json = serde_json::to_string(value).unwrap();
            assert_eq!(json, format!("{:?}", value.name()));
            assert_eq!(serde_json::from_str::<Colour>(&json).unwrap(), *value);
        }
    }

    #[test]
    fn what_is_no_value_is_refused_with_those_that_are() {
        let error = "green".parse::<Colour>().unwrap_err();
        assert_eq!((error.kind(), error.message()), (Kind::InvalidArgument, "\"green\" is not one of red, light-blue"));
        let error = Colour::from_code(2, "colour").unwrap_err();
        assert_eq!(error.message(), "colour is 2, which is not a value of optimize_colour_t");
        assert!(serde_json::from_str::<Colour>("\"green\"").is_err() && serde_json::from_str::<Colour>("0").is_err());
    }

    #[cfg(feature = "cli")]
    #[test]
    fn flags_take_the_names_and_show_the_first_paragraph() {
        use clap::ValueEnum;
        let value = Colour::Red.to_possible_value().unwrap();
        assert_eq!(value.get_name(), "red");
        assert_eq!(value.get_help().unwrap().to_string(), "As blood, fresh");
    }
}
