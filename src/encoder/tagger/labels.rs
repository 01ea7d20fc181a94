//! Labels of tokens, with the meaning of their prefixes for the entity that a token belongs to.

/// The relation of a token to the entity of the token before it, according to the prefix of its label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// The token begins an entity (`B-`).
    Begin,
    /// The token continues an entity of its class, or begins one (`I-`, or a label without a prefix).
    Inside,
    /// The token ends an entity (`L-` of BILOU, `E-` of BIOES).
    Last,
    /// The token is itself an entity (`U-` of BILOU, `S-` of BIOES).
    Unit,
}

/// A label of tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// Label in the model's configuration, for example `B-PER`.
    pub label: String,
    /// Class of the entity, for example `PER`.
    pub class: String,
    /// Meaning of the prefix of the label.
    pub mark: Mark,
}

impl Tag {
    /// Returns whether the label says that a token belongs to no entity.
    pub fn is_outside(&self) -> bool {
        self.label == "O"
    }

    /// Returns whether a token with this label belongs to the entity of the token before it, which has the label
    /// `before`.
    pub fn continues(&self, before: &Tag) -> bool {
        self.class == before.class
            && matches!(self.mark, Mark::Inside | Mark::Last)
            && !matches!(before.mark, Mark::Last | Mark::Unit)
    }
}

/// Returns the tags for labels, in their order. The prefixes of BILOU and BIOES (`L-`, `U-`, `E-`, `S-`) count only for
/// classes that also have `B-` or `I-`: a label such as `E-MAIL` may also be a whole name.
pub fn tags(labels: &[String]) -> Vec<Tag> {
    let has = |label: &str| labels.iter().any(|known| known == label);
    let tag = |label: &String| {
        let (mark, class) = match label.split_once('-') {
            Some(("B", class)) => (Mark::Begin, class),
            Some(("I", class)) => (Mark::Inside, class),
            Some((prefix @ ("L" | "E" | "U" | "S"), class))
                if has(&format!("B-{class}")) || has(&format!("I-{class}")) =>
            {
                (if matches!(prefix, "L" | "E") { Mark::Last } else { Mark::Unit }, class)
            }
            _ => (Mark::Inside, label.as_str()),
        };
        Tag { label: label.clone(), class: class.to_owned(), mark }
    };
    labels.iter().map(tag).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(labels: &[&str]) -> Vec<Tag> {
        tags(&labels.iter().map(|label| (*label).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn prefixes_count_only_where_they_are_a_scheme() {
        let tags = named(&["O", "B-PER", "I-PER", "L-PER", "U-PER", "E-MAIL", "LOC", "S-BAHN"]);
        let found: Vec<_> = tags.iter().map(|tag| (tag.class.as_str(), tag.mark)).collect();
        let wanted = [
            ("O", Mark::Inside),
            ("PER", Mark::Begin),
            ("PER", Mark::Inside),
            ("PER", Mark::Last),
            ("PER", Mark::Unit),
            ("E-MAIL", Mark::Inside),
            ("LOC", Mark::Inside),
            ("S-BAHN", Mark::Inside),
        ];
        assert_eq!(found, wanted);
        assert!(tags[0].is_outside() && !tags[1].is_outside());
    }

    #[test]
    fn entities_continue_by_their_marks() {
        let tags = named(&["O", "B-X", "I-X", "L-X", "U-X", "I-Y"]);
        let continues = |token: usize, before: usize| tags[token].continues(&tags[before]);
        assert!(continues(2, 1) && continues(2, 2) && continues(3, 2) && continues(3, 1) && continues(0, 0));
        assert!(!continues(1, 1) && !continues(1, 2) && !continues(2, 3) && !continues(2, 4) && !continues(4, 2));
        assert!(!continues(5, 2) && !continues(2, 0));
    }
}
