//! The built-in texts, which are used if the caller gives none: plain English on many subjects.

/// The built-in sentences, of 5 to 40 words.
pub const SENTENCES: [&str; 32] = [
    "The ferry leaves at noon today.",
    "How many eggs does this recipe need if I want to bake two cakes at once?",
    "Heavy rain is expected along the coast tonight, with gusts strong enough to close the bridge until morning.",
    "She tuned the old violin by ear and played the first bars of a waltz nobody in the room had heard before.",
    "Please reset my password today.",
    "The committee postponed its decision on the new tram line after residents complained about noise, dust and the \
     loss of forty parking spaces near the school.",
    "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen.",
    "Our train was delayed by three hours, the cafe was closed, and yet everyone in the carriage kept laughing.",
    "Interest rates rose by a quarter of a point, the fourth increase this year.",
    "To replace the filter, switch the machine off, wait five minutes, pull the lever on the left and slide the old \
     cartridge out before you push the new one in.",
    "I would not recommend this hotel to anyone who values sleep.",
    "The defendant's lawyer argued that the contract had been signed under pressure and was therefore void.",
    "Goats can climb tall trees.",
    "A function that calls itself must have a case in which it does not, or the program will run out of stack.",
    "Two goals in the last ten minutes saved the home side from a third defeat in a row.",
    "The doctor asked whether the pain was worse in the morning, after meals, or when he climbed the stairs.",
    "Turn left at the church and follow the river until you see a red barn.",
    "In 1911 the expedition reached the pole after a march of fifty-seven days across ice that no map had ever shown.",
    "The battery lasts about nine hours.",
    "Nobody remembered who had planted the walnut tree, but every autumn the whole village came to gather its fruit \
     and to argue about how to divide it fairly.",
    "Is there a vegetarian dish on the menu that can be made without nuts?",
    "The parcel arrived two days late and the box was torn, but the vase inside was not even scratched.",
    "Prices include tax; delivery is free for orders above fifty euros.",
    "Astronomers measured the faint dip in the star's brightness and concluded that a planet the size of Neptune \
     passes in front of it every eleven days.",
    "My grandmother kept bees, mended clocks and never once complained about the weather.",
    "The museum is closed on Mondays and on the second Thursday of each month, except in July and August.",
    "Add the flour slowly, stir until the dough no longer sticks, and let it rest under a damp cloth for an hour.",
    "The new law obliges companies with more than two hundred employees to publish the pay gap between men and women \
     every year, broken down by department and by length of service.",
    "He forgot the keys again.",
    "Compared with last spring, the number of visitors fell by twelve percent while sales in the shop nearly doubled.",
    "The software update fixed the crash on start-up, but some users report that the camera now opens much more \
     slowly than it did before.",
    "When the lights went out, the children lit candles and their father told them the story of the fisherman who \
     sold his shadow and spent the rest of his long life trying to buy it back.",
];

#[cfg(test)]
mod tests {
    use super::SENTENCES;

    #[test]
    fn sentences_are_short_distinct_and_plain() {
        for (index, sentence) in SENTENCES.iter().enumerate() {
            let words = sentence.split_whitespace().count();
            assert!((5..=40).contains(&words), "{words} words: {sentence}");
            assert!(!sentence.contains("  ") && !SENTENCES[..index].contains(sentence), "{sentence}");
        }
    }
}
