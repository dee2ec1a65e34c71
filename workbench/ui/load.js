// First lines of every component script: load the chart bundle once per page, under the app's own root path.
const config = window.gradio_config || {};
const bundle = (config.root || '') + (config.api_prefix || '/gradio_api') + '/file=' + props.bundle;
await (window.__workbench ??= new Promise((done, failed) => document.head.append(
  Object.assign(document.createElement('script'), {src: bundle, onload: done, onerror: failed}))));
