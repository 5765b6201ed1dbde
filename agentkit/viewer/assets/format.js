// @ts-check
/** How times, amounts and texts read. */

/**
 * Return a duration.
 * @param {number | null | undefined} micros microseconds
 */
export function duration(micros) {
  if (micros === null || micros === undefined) return '';
  const ms = micros / 1000;
  if (ms < 1) return `${Math.round(micros)} µs`;
  if (ms < 1000) return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
  const s = ms / 1000;
  if (s < 60) return `${s.toFixed(s < 10 ? 2 : 1)} s`;
  const m = Math.floor(s / 60);
  return m < 60 ? `${m} min ${Math.round(s % 60)} s` : `${Math.floor(m / 60)} h ${m % 60} min`;
}

/**
 * Return a number with thin spaces between thousands.
 * @param {number} value
 */
export function count(value) {
  return String(value).replace(/\B(?=(\d{3})+$)/g, ' ');
}

/**
 * Return the number of things, with the plural where it is due.
 * @param {number} value
 * @param {string} what
 */
export function counted(value, what) {
  return `${count(value)} ${what}${value === 1 ? '' : 's'}`;
}

/**
 * Return an amount in USD.
 * @param {number | null | undefined} cost
 */
export function money(cost) {
  if (cost === null || cost === undefined) return '';
  return cost >= 0.0001 || cost === 0 ? `$${cost.toFixed(4)}` : '<$0.0001';
}

/**
 * Return a size in bytes.
 * @param {number} value
 */
export function size(value) {
  if (value < 1000) return `${value} B`;
  return value < 1e6 ? `${(value / 1000).toFixed(1)} kB` : `${(value / 1e6).toFixed(1)} MB`;
}

/**
 * Return tokens read and written.
 * @param {Record<string, number> | undefined} usage
 */
export function tokens(usage) {
  if (!usage || !(usage.input_tokens || usage.output_tokens)) return '';
  return `${count(usage.input_tokens ?? 0)} → ${count(usage.output_tokens ?? 0)}`;
}

/* Controls, what turns the direction of text, and what is not seen; joiners of emoji stay. */
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

/**
 * Return a text in which what is not seen is: controls, marks of direction, lone surrogates.
 * @param {string} text
 */
export function visible(text) {
  return text.replace(HIDDEN, (char) => {
    const code = char.charCodeAt(0);
    return code < 256 ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u${code.toString(16).padStart(4, '0')}`;
  });
}

/**
 * Return the first line of a text, cut.
 * @param {string} text
 * @param {number} [most]
 */
export function short(text, most = 160) {
  const line = visible(text.slice(0, 4 * most)).replace(/\s+/g, ' ').trim();
  return line.length > most || text.length > 4 * most ? `${line.slice(0, most - 1)}…` : line;
}

/**
 * Return a word as a shell reads it.
 * @param {string} word
 */
export function quoted(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`;
}

/**
 * Return a value of a trace as text: marks of what JSON cannot hold are what they stand for.
 * @param {any} value
 * @returns {string}
 */
export function asText(value) {
  if (typeof value === 'string') return value;
  if (value && typeof value === 'object' && '$nonjson' in value && typeof value.value === 'string') {
    return value.$nonjson === 'bytes' ? `(bytes) ${value.value}` : value.value;
  }
  try {
    return JSON.stringify(value) ?? '';
  } catch {
    return '(nested too deeply to show)';
  }
}
