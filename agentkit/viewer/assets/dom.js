// @ts-check
/** Elements. What a trace holds gets into the page here alone: as text, never as markup. */

/** @typedef {Node | string | number | null | undefined | false} Child */

/**
 * Make an element.
 * @param {string} tag its name
 * @param {Record<string, any>} [props] attributes; functions named `on…` listen to events
 * @param {...(Child | Child[])} children elements and texts
 * @returns {HTMLElement}
 */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || (value === false && !name.startsWith('aria-'))) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true && !name.startsWith('aria-') ? '' : String(value));
  }
  fill(element, ...children);
  return element;
}

/**
 * Put children in the place of those that an element has.
 * @param {Element} element
 * @param {...(Child | Child[])} children
 */
export function fill(element, ...children) {
  const nodes = children.flat().filter((one) => one !== null && one !== undefined && one !== false);
  element.replaceChildren(.../** @type {(Node | string)[]} */ (nodes.map((one) => one instanceof Node ? one : String(one))));
}

/**
 * Make a button.
 * @param {string} label what it says
 * @param {(event: Event) => void} action what it does
 * @param {Record<string, any>} [props]
 */
export function button(label, action, props = {}) {
  return h('button', { type: 'button', onclick: action, ...props }, label);
}

/**
 * Make a section with a title.
 * @param {Child | Child[]} title
 * @param {...(Child | Child[])} children
 */
export function section(title, ...children) {
  return h('section', { class: 'section' }, h('h3', {}, title), ...children);
}

/**
 * Make a table of names and values.
 * @param {[string, Child][]} pairs
 */
export function facts(pairs) {
  const rows = pairs.filter(([, value]) => value !== null && value !== undefined && value !== '' && value !== false);
  return h('dl', { class: 'facts' }, rows.flatMap(([name, value]) => [h('dt', {}, name), h('dd', {}, value)]));
}
