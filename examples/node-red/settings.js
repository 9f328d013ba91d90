// Node-RED on this machine alone, with the flows beside this file. See README.md.
const path = require("node:path");

module.exports = {
  uiHost: "127.0.0.1",
  uiPort: process.env.PORT || 1880,
  userDir: __dirname,
  flowFile: path.join(__dirname, "flows.json"),
  readOnly: true, // the flows of this example stay as they are committed
  credentialSecret: false, // there are none
  logging: { console: { level: "info", metrics: false, audit: false } },
  functionExternalModules: false,
  externalModules: { autoInstall: false, palette: { allowInstall: false } },
};
