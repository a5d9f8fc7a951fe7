// The retrieval explorer: R-MAC over a box of a picture, ranking, DBA, QE and codes, computed on this page. The data
// (data.js, by make.py): feature maps of queries, whitenings, descriptors of the database, 8 bits a value.
// A function says what of rmaclib it repeats.
"use strict";
window.explorer = (() => {
  let about, int8, float32;
  const at = {}, kept = new Map();  // where each part starts in int8 or float32; databases by their settings

  async function unpack(text) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  }

  async function load({about: given, bytes}) {
    about = given;
    int8 = new Int8Array(await unpack(bytes.int8));
    float32 = new Float32Array(await unpack(bytes.float32));
    for (const [name, start] of about.starts) at[name] = start;
  }

  // rmaclib.regions.rigid_grid, variant "exact": squares [x, y, side] of a map

  function rigidGrid(rows, columns, levels) {
    const shorter = Math.min(rows, columns), rest = Math.max(rows, columns) - shorter;
    let extra = 0, best = null;  // how far the overlap of neighbours is from 40 %, as a fraction: no rounding
    for (let count = 2; rest > 0 && count <= 7; count++) {
      const miss = [Math.abs(3 * shorter * (count - 1) - 5 * rest), count - 1];
      if (best === null || miss[0] * best[1] < best[0] * miss[1]) [best, extra] = [miss, count - 1];
    }
    const squares = [];
    for (let level = 1; level <= levels; level++) {
      const side = Math.floor(2 * shorter / (level + 1));
      if (side < 1) break;
      const starts = (length, count) => Array.from({length: count}, (_, k) => Math.floor(k * (length - side) / Math.max(count - 1, 1)));
      for (const y of starts(rows, level + (rows > columns ? extra : 0)))
        for (const x of starts(columns, level + (columns > rows ? extra : 0))) squares.push([x, y, side]);
    }
    return squares;
  }

  // The cells that a box touches, at least one. box: [x1, y1, x2, y2], parts of the picture's sides.
  function cellsOf(box, rows, columns) {
    const x = Math.min(Math.floor(box[0] * columns), columns - 1), y = Math.min(Math.floor(box[1] * rows), rows - 1);
    return {x, y, columns: Math.max(Math.ceil(box[2] * columns), x + 1) - x, rows: Math.max(Math.ceil(box[3] * rows), y + 1) - y};
  }

  function normalise(vector) {
    let sum = 0;
    for (const value of vector) sum += value * value;
    const length = Math.sqrt(sum) || 1;
    for (let i = 0; i < vector.length; i++) vector[i] /= length;
    return vector;
  }

  // rmaclib.network.RMAC.aggregate: each channel's largest value in a square, l2, shift, fc, l2, sum, l2

  function descriptor(query, box, {network, levels, several}) {
    const {channels, dims} = about, total = new Float32Array(dims);
    const [shift, weights, scale] = ["shift", "fc", "scale"].map((name) => at[`${name}_${network}`]);
    for (const size of several ? about.sizes.keys() : [about.single]) {
      const [rows, columns] = about.shapes[query][size], start = at[`map_${network}_${query}_${size}`];
      const part = cellsOf(box, rows, columns), sum = new Float32Array(dims);
      for (const [left, top, side] of rigidGrid(part.rows, part.columns, levels)) {
        const pooled = new Float32Array(channels);
        for (let y = part.y + top; y < part.y + top + side; y++)
          for (let x = part.x + left; x < part.x + left + side; x++) {
            const cell = start + (y * columns + x) * channels;
            for (let c = 0; c < channels; c++) if (int8[cell + c] > pooled[c]) pooled[c] = int8[cell + c];
          }
        normalise(pooled);
        for (let c = 0; c < channels; c++) pooled[c] += float32[shift + c];
        const whitened = new Float32Array(dims);
        for (let d = 0, w = weights; d < dims; d++) {
          let value = 0;
          for (let c = 0; c < channels; c++) value += int8[w++] * pooled[c];
          whitened[d] = value * float32[scale + d];
        }
        normalise(whitened).forEach((value, d) => { sum[d] += value; });
      }
      normalise(sum).forEach((value, d) => { total[d] += value; });
    }
    return normalise(total);
  }

  // rmaclib.ranking and rmaclib.search

  const row = (vectors, i) => vectors.subarray(i * about.dims, (i + 1) * about.dims);

  function similarities(query, vectors) {
    const {dims} = about, result = new Float32Array(vectors.length / dims);
    for (let i = 0, v = 0; i < result.length; i++) {
      let value = 0;
      for (let d = 0; d < dims; d++) value += query[d] * vectors[v++];
      result[i] = value;
    }
    return result;
  }

  const order = (values) => Array.from(values.keys()).sort((a, b) => values[b] - values[a] || a - b);

  // rmaclib.search.expansion.augment: the mean of each vector and its k nearest, weights 1, 1, (k - 1) / k, ..., 1 / k
  function augment(vectors, k) {
    const result = new Float32Array(vectors.length), count = vectors.length / about.dims;
    const weights = [1, ...Array.from({length: k}, (_, rank) => (k - rank) / k)], all = weights.reduce((a, b) => a + b);
    for (let i = 0; i < count; i++) {
      const values = similarities(row(vectors, i), vectors), target = row(result, i);
      values[i] = Infinity;
      order(values).slice(0, k + 1).forEach((other, rank) => {
        row(vectors, other).forEach((value, d) => { target[d] += weights[rank] / all * value; });
      });
    }
    return result;
  }

  // rmaclib.search.compression, product quantization: each part of a vector becomes its nearest word
  function decoded(vectors, network, bytes) {
    const {dims} = about, words = 256, width = dims / bytes, result = new Float32Array(vectors.length);
    const start = at[`codebook_${network}_${bytes}`], scale = float32[at[`codebook_scale_${network}_${bytes}`]];
    const book = Float32Array.from(int8.subarray(start, start + words * dims), (value) => value * scale);
    for (let first = 0; first < vectors.length; first += dims)
      for (let part = 0; part < bytes; part++) {
        let best = 0, least = Infinity;
        for (let word = 0; word < words; word++) {
          let distance = 0;
          for (let d = 0, b = (part * words + word) * width; d < width; d++) distance += (vectors[first + part * width + d] - book[b + d]) ** 2;
          if (distance < least) [least, best] = [distance, word];
        }
        result.set(book.subarray((part * words + best) * width, (part * words + best + 1) * width), first + part * width);
      }
    return result;
  }

  function database({network, levels, several, dba, bytes}) {
    const key = [network, levels, several, dba, bytes].join();
    if (!kept.has(key)) {
      const {dims, images} = about, start = at[`database_${network}_${several ? "several" : "single"}_${levels}`];
      let vectors = Float32Array.from(int8.subarray(start, start + images.length * dims));
      for (let i = 0; i < images.length; i++) normalise(row(vectors, i));
      if (dba) vectors = augment(vectors, dba);
      if (bytes < dims) vectors = decoded(vectors, network, bytes);
      kept.set(key, vectors);
    }
    return kept.get(key);
  }

  // The images of the database, the most similar first. box: parts of the sides of the picture of the query.
  function rank(query, box, settings) {
    const vectors = database(settings);
    const vector = descriptor(query, box, settings);
    let values = similarities(vector, vectors);
    if (settings.qe) {  // rmaclib.search.expansion.expand_queries
      for (const i of order(values).slice(0, settings.qe)) row(vectors, i).forEach((value, d) => { vector[d] += value; });
      values = similarities(normalise(vector), vectors);
    }
    return order(values);
  }

  // rmaclib.evaluation, protocol "oxford": junk is skipped, trapezoids under precision

  function averagePrecision(query, ranking) {
    const positives = new Set(about.queries[query].positives), junk = new Set(about.queries[query].junk);
    let area = 0, hits = 0, seen = 0, before = 1;
    for (const image of ranking) {
      if (junk.has(image)) continue;
      seen++;
      if (positives.has(image)) area += (before + ++hits / seen) / 2 / positives.size;
      before = hits / seen;
    }
    return area;
  }

  return {load, rank, rigidGrid, cellsOf, descriptor, averagePrecision, about: () => about};
})();
