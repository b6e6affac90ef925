// A folder of its own for one test, gone with the object.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "gtest/gtest.h"

namespace headcount {

class TempFolder {
 public:
  TempFolder() {
    std::string name = testing::TempDir() + "headcount_XXXXXX";
    EXPECT_NE(mkdtemp(name.data()), nullptr);
    path_ = name;
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  ~TempFolder() { std::filesystem::remove_all(path_); }

  const std::filesystem::path& path() const { return path_; }

  // Returns the path of the file written.
  std::string Write(const std::string& name, std::string_view bytes) const {
    const std::filesystem::path file = path_ / name;
    std::ofstream(file, std::ios::binary) << bytes;
    EXPECT_EQ(std::filesystem::file_size(file), bytes.size());
    return file.string();
  }

 private:
  std::filesystem::path path_;
};

}  // namespace headcount
