//! Rotary position embeddings in standard operators.

use super::builder::NodeBuilder;
use super::edit::int_attribute;

impl NodeBuilder {
    /// Adds the rotation of pairs of elements by the angle of their position (Su et al. 2021, arXiv 2104.09864) and
    /// returns the name of its output.
    ///
    /// `x` is `[batch, heads, tokens, size]`; its first `width` elements are rotated and the others kept. `[cos, sin]`
    /// have the last dimension `width / 2` and are broadcast. A pair is two neighbouring elements if `interleaved` is
    /// set, otherwise an element and the one `width / 2` after it.
    pub fn rotate(
        &mut self,
        x: &str,
        [cos, sin]: &[String; 2],
        (size, width): (i64, i64),
        interleaved: bool,
    ) -> String {
        let rotated = if width < size { self.slice(x, 0, width, 3) } else { x.to_owned() };
        let (first, second) = if interleaved {
            let (from, to, axis, step) = (self.ints(&[0]), self.ints(&[width]), self.ints(&[3]), self.ints(&[2]));
            let one = self.ints(&[1]);
            (
                self.op("Slice", &[&rotated, &from, &to, &axis, &step]),
                self.op("Slice", &[&rotated, &one, &to, &axis, &step]),
            )
        } else {
            (self.slice(&rotated, 0, width / 2, 3), self.slice(&rotated, width / 2, width, 3))
        };
        let mut product = |a: &str, b: &str| self.op("Mul", &[a, b]);
        let (ac, bs, bc, as_) =
            (product(&first, cos), product(&second, sin), product(&second, cos), product(&first, sin));
        let left = self.op("Sub", &[&ac, &bs]);
        let right = self.op("Add", &[&bc, &as_]);
        let mut whole = if interleaved {
            let axis = self.ints(&[4]);
            let (left, right) = (self.op("Unsqueeze", &[&left, &axis]), self.op("Unsqueeze", &[&right, &axis]));
            let pairs = self.op_with("Concat", &[&left, &right], vec![int_attribute("axis", -1)]);
            let shape = self.ints(&[0, 0, 0, width]);
            self.op("Reshape", &[&pairs, &shape])
        } else {
            self.op_with("Concat", &[&left, &right], vec![int_attribute("axis", -1)])
        };
        if width < size {
            let rest = self.slice(x, width, size, 3);
            whole = self.op_with("Concat", &[&whole, &rest], vec![int_attribute("axis", -1)]);
        }
        whole
    }
}
