// @ts-check
/** Texts of any length, as blocks: cut at first, laid out where they are JSON. */

import { button, fill, h } from './dom.js';
import { asText, size, visible } from './format.js';
import { coloured, laidOut } from './json.js';

const FIRST = 5000;
const MORE = 100_000;
/** Characters of JSON that are coloured: each part is an element. */
const COLOURED = 20_000;

/**
 * Return a block with a value: text as it is, JSON laid out.
 * @param {import('./state.js').App} app
 * @param {any} value
 * @param {{first?: number, kind?: string, label?: string}} [options]
 * @returns {HTMLElement}
 */
export function block(app, value, options = {}) {
  const text = asText(value), json = laidOut(text), whole = json ?? text;
  let shown = Math.min(whole.length, options.first ?? FIRST);
  const pre = h('pre', { class: `text ${json === null ? options.kind ?? '' : (options.kind ?? '').replace('prose', '')}`, tabindex: whole.length > 400 ? 0 : undefined });
  const foot = h('div', { class: 'block-foot' });
  const place = found(whole, app.state.query, shown);
  const draw = () => {
    const part = visible(whole.slice(0, shown));
    fill(pre, json !== null && shown <= COLOURED ? coloured(part) : part);
    if (place > shown) {
      const around = visible(whole.slice(Math.max(shown, place - 300), place + 1200));
      fill(pre, ...pre.childNodes, h('span', { class: 'gap' }, '\n … \n'), around);
    }
    const rest = whole.length - shown;
    fill(foot, rest > 0 && h('span', {}, `${size(rest)} more`), rest > 0 && button('Show more', () => {
      shown = Math.min(whole.length, shown + MORE);
      draw();
    }, { class: 'link' }));
    foot.hidden = rest <= 0;
  };
  draw();
  return h('div', { class: 'block' }, pre, foot, copier(app, () => text, options.label ?? 'text'));
}

/**
 * Return where a search finds something that is not shown; -1 if that is nowhere.
 * @param {string} whole
 * @param {string} query
 * @param {number} shown
 */
function found(whole, query, shown) {
  if (!query || whole.length <= shown) return -1;
  const first = pattern(query).exec(whole);
  return first && first.index + query.length > shown ? first.index : -1;
}

/**
 * Return the expression that finds a text, whatever its case.
 * @param {string} query
 */
export function pattern(query) {
  return new RegExp(query.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'), 'gi');
}

/**
 * Return a button that copies a text.
 * @param {import('./state.js').App} app
 * @param {() => string} text
 * @param {string} what
 */
export function copier(app, text, what) {
  return button('Copy', () => copy(app, text(), `Copied the ${what}`), { class: 'copy', 'aria-label': `Copy the ${what}` });
}

/**
 * Put a text on the clipboard, and say so.
 * @param {import('./state.js').App} app
 * @param {string} text
 * @param {string} message
 */
export async function copy(app, text, message) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // a browser that does not let a file do so
    const area = /** @type {HTMLTextAreaElement} */ (h('textarea', { class: 'away', 'aria-hidden': 'true' }));
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand('copy');
    area.remove();
  }
  app.announce(message);
}

/**
 * Return an image that stands in the page's own data; a text for any other.
 * @param {any} url
 */
export function image(url) {
  const inline = typeof url === 'string' && /^data:image\/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/=\s]+$/.test(url);
  return inline ? h('img', { src: url, alt: 'Image of a message', class: 'image' }) : h('div', { class: 'note' }, `Image, not loaded: ${visible(asText(url)).slice(0, 300)}`);
}
