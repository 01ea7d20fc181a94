//! Random models on images.

use super::*;

/// Methods for models on images.
impl Maker {
    pub fn conv(&mut self, x: &str, from: i64, to: i64, kernel: i64, group: i64) -> String {
        let w = self.weight(&[to, from / group, kernel, kernel]);
        let pad = kernel / 2;
        let attributes = vec![int_attribute("group", group), ints_attribute("pads", &[pad; 4])];
        if self.random.chance() {
            let b = self.vector(to, 0.1);
            return self.op("Conv", &[x, &w, &b], attributes);
        }
        self.op("Conv", &[x, &w], attributes)
    }

    fn norm(&mut self, x: &str, channels: i64) -> String {
        match self.random.below(4) {
            0 => x.to_owned(),
            1 if channels % 2 == 0 => {
                // Exporters write GroupNormalization as a Reshape into groups, an InstanceNormalization, and a Reshape
                // back.
                let (scale, shift) = (self.vector(2, 1.0), self.vector(2, 0.0));
                let (apart, back) = (self.ints(&[0, 2, -1]), self.op("Shape", &[x], vec![]));
                let y = self.op("Reshape", &[x, &apart], vec![]);
                let y = self.op("InstanceNormalization", &[&y, &scale, &shift], vec![]);
                self.op("Reshape", &[&y, &back], vec![])
            }
            _ => {
                let (scale, shift) = (self.vector(channels, 1.0), self.vector(channels, 0.2));
                let (mean, variance) = (self.vector(channels, 0.0), self.vector(channels, 1.0));
                self.op("BatchNormalization", &[x, &scale, &shift, &mean, &variance], vec![])
            }
        }
    }

    fn unit(&mut self, x: &str, from: i64, to: i64, kernel: i64, group: i64) -> String {
        let y = self.conv(x, from, to, kernel, group);
        let y = self.norm(&y, to);
        self.activation(&y)
    }

    /// Returns residual, inverted, grouped and inception blocks over `[batch, 3, 8, 8]`.
    pub fn images(mut self) -> Model {
        let mut channels = 8 + 4 * self.random.below(3) as i64;
        let mut x = self.unit("x", 3, channels, 3, 1);
        for _ in 0..1 + self.random.below(3) {
            let inner = 4 * (1 + self.random.below(4)) as i64;
            match self.random.below(6) {
                0 => {
                    let y = self.unit(&x, channels, inner, 3, 1);
                    let y = self.unit(&y, inner, channels, 1, 1);
                    x = self.op("Add", &[&x, &y], vec![]);
                }
                1 => {
                    let y = self.unit(&x, channels, 2 * channels, 1, 1);
                    let wide = 2 * channels * (1 + self.random.below(2) as i64);
                    let y = self.unit(&y, 2 * channels, wide, 3, 2 * channels);
                    let y = self.unit(&y, wide, channels, 1, 1);
                    x = self.op("Add", &[&x, &y], vec![]);
                }
                2 => {
                    let group = self.random.pick(&[2, 4]);
                    x = self.unit(&x, channels, inner, 3, 1).pipe(|y| self.unit(&y, inner, 2 * inner, 3, group));
                    channels = 2 * inner;
                }
                3 => {
                    let (a, b) = (self.unit(&x, channels, inner, 1, 1), self.unit(&x, channels, 6, 3, 1));
                    x = self.op("Concat", &[&a, &b, &x], vec![int_attribute("axis", 1)]);
                    channels += inner + 6;
                }
                4 => {
                    let y = self.unit(&x, channels, 2 * inner, 1, 1);
                    let parts = self.split(&y, 1, &[inner, inner]);
                    let gate = self.op("Sigmoid", &[&parts[0]], vec![]);
                    let y = self.op("Mul", &[&gate, &parts[1]], vec![]);
                    x = self.unit(&y, inner, channels, 3, 1);
                }
                _ => {
                    // A squeeze-and-excite block.
                    let y = self.unit(&x, channels, inner, 3, 1);
                    let s = self.op("GlobalAveragePool", &[&y], vec![]);
                    let s = self.unit(&s, inner, 4, 1, 1).pipe(|s| self.conv(&s, 4, inner, 1, 1));
                    let s = self.op("Sigmoid", &[&s], vec![]);
                    let y = self.op("Mul", &[&y, &s], vec![]);
                    x = self.unit(&y, inner, channels, 1, 1);
                }
            }
        }
        self.head(&x, channels)
    }

    fn head(mut self, x: &str, channels: i64) -> Model {
        let (x, size) = match self.random.below(3) {
            0 => (self.op("GlobalAveragePool", &[x], vec![]), channels),
            1 => {
                let attributes = vec![ints_attribute("kernel_shape", &[4, 4]), ints_attribute("strides", &[4, 4])];
                (self.op("MaxPool", &[x], attributes), channels * 4)
            }
            _ => {
                let attributes = vec![ints_attribute("kernel_shape", &[2, 2]), ints_attribute("strides", &[2, 2])];
                (self.op("AveragePool", &[x], attributes), channels * 16)
            }
        };
        let flat = if self.random.chance() {
            self.op("Flatten", &[&x], vec![int_attribute("axis", 1)])
        } else {
            let shape = self.random.pick(&[[0, -1], [-1, size]]);
            let shape = self.ints(&shape);
            self.op("Reshape", &[&x, &shape], vec![])
        };
        let (w, b) = (self.weight(&[5, size]), self.vector(5, 0.0));
        let y = self.op("Gemm", &[&flat, &w, &b], vec![int_attribute("transB", 1)]);
        self.finish(&y, &[-1, 3, 8, 8], &[-1, 5])
    }
}
